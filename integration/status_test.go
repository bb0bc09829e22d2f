package integration

import (
	"encoding/json"
	"maps"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"appliance/internal/control"
	"appliance/internal/lab"
)

// The status has what a person needs, and as JSON exactly what its description
// says.
func TestCommandLineStatus(t *testing.T) {
	t.Parallel()
	p := newPair(t, patientConfig(t))
	p.start()
	load := p.load(50, 80)
	p.waitRequests(load, 20)
	load.Stop()
	p.dialEcho(3306)
	table := func(n *lab.Node, want ...string) {
		t.Helper()
		for _, w := range want {
			output := ""
			defer func() {
				if t.Failed() {
					t.Log(output)
				}
			}()
			eventually(t, 20*time.Second, n.Name+": the status says "+w, func() bool {
				var code int
				code, output = p.applianctl(n, "status")
				return code == 0 && regexp.MustCompile(`(?m)`+w).MatchString(output)
			})
		}
	}
	table(p.LB01,
		`^node lb01, version \S+, up \d+s$`, `^config `+lab.ConfigPath+` \(sha256 [0-9a-f]{12}\), loaded \d+s ago$`,
		`^VI_1 +50 +eth0 +ACTIVE +\d+s +100 +192\.168\.15\.3/24 +this node$`,
		`^web +L7 +192\.168\.15\.3:80 +3 +0 +[1-9]\d* +0 `, `^tcp +L4 +192\.168\.15\.3:3306 +3 +1 +1 `,
		`^web/web1 +172\.16\.1\.51:80 +UP +\d+s +ready +1 +0 +[1-9]\d* +0 .*status 200 \(\d+\.\d ms, 0 of [1-9]\d* failed\)$`,
		`^tcp/172\.16\.1\.53:3306 +- +UP `)
	table(p.LB02, `^VI_1 +50 +eth0 +BACKUP +\d+s +90 +192\.168\.15\.3/24 +192\.168\.15\.11 \(priority 100\)$`)

	// Trouble of every kind that is to be had: a refused file, dead servers, a
	// packet that is none.
	if err := p.LB02.WriteConfig("listen ="); err != nil {
		t.Fatal(err)
	}
	if code, _ := p.applianctl(p.LB02, "reload"); code != 1 {
		t.Errorf("reload of a broken file: exit code %d, want 1", code)
	}
	for _, s := range p.Servers {
		s.Kill()
	}
	fragment := forgedFrame{header: func(ip []byte) { ip[6] = 0x20 }}
	p.newForgedSender().send(fragment.build(p.forgedNodes()[1].mac))
	eventually(t, 20*time.Second, "lb02 is demoted and has counted the fragment", func() bool {
		v := p.status(p.LB02).VRRP[0]
		return len(v.Demotions) > 0 && v.Counters["receive_error_fragment"] > 0
	})
	eventually(t, 20*time.Second, "lb02 hears that lb01 is demoted", func() bool {
		r := p.status(p.LB02).VRRP[0].ActiveRouter
		return r != nil && r.Priority == 89
	})
	table(p.LB02, `^the latest reload was refused:$`, `appliance\.toml:1:`, ` BACKUP +\d+s +79 of 90 `,
		`^VI_1: demoted by 11: service web: no usable server in pool web, for \d+s$`,
		`^web +L7 +192\.168\.15\.3:80 +0 `, `^web/web2 .* DOWN .*connection refused`)

	code, output := p.applianctl(p.LB02, "status", "--json")
	if code != 0 {
		t.Fatalf("status --json: exit code %d: %s", code, output)
	}
	decoder := json.NewDecoder(strings.NewReader(output))
	decoder.DisallowUnknownFields()
	var s control.Status
	if err := decoder.Decode(&s); err != nil {
		t.Fatalf("the status is not what internal/control says: %v\n%s", err, output)
	}
	if s.Node != "lb02" || s.PID != p.LB02.Appliance().PID() || !s.Ready || s.Started.IsZero() || s.Started.After(time.Now()) || s.Config.Path != lab.ConfigPath {
		t.Errorf("the status says %+v", s)
	}
	var tree any
	if err := json.Unmarshal([]byte(output), &tree); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(output, "null") {
		t.Errorf("the status has a null:\n%s", output)
	}
	present := make(map[string]bool)
	cliPaths(tree, "", present)
	fields := make(map[string]bool)
	cliFields(reflect.TypeFor[control.Status](), "", false, fields)
	documented := cliDocumented(t)
	for path := range documented {
		if !slices.ContainsFunc(slices.Collect(maps.Keys(present)), func(have string) bool { return cliMatches(path, have) }) && !fields[path] {
			t.Errorf("docs/status.md describes %s, which the status does not have", path)
		}
	}
	maps.Copy(present, fields)
	for have := range present {
		if cliElsewhere.MatchString(have) {
			continue
		}
		if !slices.ContainsFunc(slices.Collect(maps.Keys(documented)), func(path string) bool { return cliMatches(path, have) }) {
			t.Errorf("docs/status.md does not describe %s", have)
		}
	}
}

// cliPaths collects the paths of all fields of a JSON value; elements of lists
// have that of their list.
func cliPaths(v any, path string, found map[string]bool) {
	switch v := v.(type) {
	case map[string]any:
		for key, value := range v {
			at := strings.TrimPrefix(path+"."+key, ".")
			found[at] = true
			cliPaths(value, at, found)
		}
	case []any:
		for _, element := range v {
			cliPaths(element, path, found)
		}
	}
}

// cliEmpty are the lists that have nothing in them here: there is no trouble of
// that kind, no [peer] and no access log.
var cliEmpty = []string{"vrrp.faults", "vrrp.alarms", "vrrp.foreign_claims", "peers", "access_logs"}

// cliFields collects the paths of all fields of a type, with true for those that
// may be missing: those that their type lets be, what is below them, and what is
// in lists that are empty.
func cliFields(t reflect.Type, path string, below bool, found map[string]bool) {
	for t.Kind() == reflect.Slice || t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct || t == reflect.TypeFor[time.Time]() {
		return
	}
	for i := range t.NumField() {
		name, options, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		at := strings.TrimPrefix(path+"."+name, ".")
		may := below || options == "omitempty" || slices.Contains(cliEmpty, path)
		found[at] = may
		cliFields(t.Field(i).Type, at, may, found)
	}
}

// cliMatches reports whether a path of the documentation means one of the JSON.
// What the counters and responses are called is theirs to say.
func cliMatches(path, have string) bool {
	if prefix, ok := strings.CutSuffix(path, "*"); ok {
		return strings.HasPrefix(have, prefix)
	}
	return path == have || (path == "services.responses" || path == "services.errors" || path == "pools.servers.errors") && strings.HasPrefix(have, path+".")
}

var (
	cliQuoted = regexp.MustCompile("`([^`]+)`")
	cliName   = regexp.MustCompile(`^[a-z_0-9]+(\*|\[\])?$`)
	// cliTables are the names of tables, as docs/status.md has them.
	cliTables = []string{".active_router", ".advert_lateness", ".counters", ".lingering", ".passing_on", ".refused_advert", ".certificates", "kernel"}
	// cliNoField are what a meaning quotes besides: values, and what one of two
	// lists alone has.
	cliNoField = regexp.MustCompile(`^vrrp\.alarms\.(adverts|isolated)$|^vrrp\.faults\.amount$`)
	// cliElsewhere are fields that their type shares with another list, which
	// describes them, or is the only one that has them.
	cliElsewhere = regexp.MustCompile(`^vrrp\.(faults|alarms)\.amount$|^peers\.vrrp\.(demotions|faults)\.|^vrrp\.passing_on\.(connections|seconds_left)$`)
)

// cliDocumented returns the paths of all fields in the first table of
// docs/status.md. There a name without a dot begins at the top, one with a dot
// belongs to the latest group, one with two to the latest group within it; what
// the meaning of a group quotes is in it.
func cliDocumented(t *testing.T) map[string]bool {
	t.Helper()
	text, err := os.ReadFile("../docs/status.md")
	if err != nil {
		t.Fatal(err)
	}
	found := make(map[string]bool)
	group, inner := "", ""
	_, rows, _ := strings.Cut(string(text), "| --- | --- |\n")
	for row := range strings.Lines(rows) {
		cells := strings.Split(row, "|")
		if len(cells) < 4 {
			break // the table's end
		}
		var groups []string
		for _, m := range cliQuoted.FindAllStringSubmatch(cells[1], -1) {
			name := strings.TrimSuffix(m[1], "[]")
			isGroup := name != m[1] || slices.Contains(cliTables, name) || name == ".flows" && group == "peers"
			switch {
			case strings.HasPrefix(name, ".."):
				name = inner + name[1:]
			case strings.HasPrefix(name, "."):
				name = group + name
				if isGroup {
					inner = name
				}
			case isGroup:
				group = name
			case strings.Contains(name, "."):
				group, _, _ = strings.Cut(name, ".")
				found[group] = true
			}
			found[name] = true
			if isGroup {
				groups = append(groups, name)
			}
		}
		for _, g := range groups {
			for _, m := range cliQuoted.FindAllStringSubmatch(cells[2], -1) {
				name := g + "." + strings.TrimSuffix(m[1], "[]")
				if cliName.MatchString(m[1]) && !cliNoField.MatchString(name) {
					found[name] = true
				}
			}
		}
	}
	if len(found) < 50 {
		t.Fatalf("only %d fields found in docs/status.md: %v", len(found), slices.Sorted(maps.Keys(found)))
	}
	return found
}
