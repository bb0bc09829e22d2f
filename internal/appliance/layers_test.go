package appliance

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// layers lists for each package of the appliance which others it may import.
// docs/design.md draws the picture. A package that is missing here fails the
// test: a new one chooses its place knowingly.
var layers = map[string][]string{
	"vrrp":                nil,
	"vrrp/vrrptest":       {"vrrp"},
	"health":              {"internal/endpoint", "internal/proxyproto"},
	"l4":                  {"internal/epoll", "internal/endpoint", "internal/pool", "internal/listen", "internal/proxyproto"},
	"l4/kernel":           {"internal/ingress"},
	"l7":                  {"internal/endpoint", "internal/pool", "internal/listen", "internal/certs", "internal/proxyproto", "l7/http1", "l7/accesslog"},
	"l7/http1":            nil,
	"l7/accesslog":        nil,
	"internal/endpoint":   nil,
	"internal/pool":       {"internal/endpoint"},
	"internal/proxyproto": nil,
	"internal/listen":     {"internal/epoll"},
	"internal/epoll":      nil,
	"internal/resolve":    nil,
	"internal/certs":      nil,
	"internal/link":       nil,
	"internal/guard":      {"internal/link"},
	"internal/ingress":    {"internal/link"},
	"internal/steer":      {"internal/ingress"},
	"internal/peer":       nil,
	"internal/flowsync":   nil,
	"internal/fdstore":    nil,
	"internal/config":     {"internal/endpoint", "vrrp", "health", "l4", "l7", "internal/pool", "internal/certs", "internal/peer"},
	"internal/events":     nil,
	"internal/control":    {"internal/events"},
	"internal/metrics":    {"internal/control"},
	"internal/appliance":  {"internal/endpoint", "internal/resolve", "vrrp", "health", "l4", "l4/kernel", "l7", "internal/pool", "internal/listen", "internal/link", "internal/guard", "internal/config", "internal/control", "internal/metrics", "internal/events", "internal/peer", "internal/flowsync", "internal/fdstore", "internal/ingress", "internal/steer"},
	"internal/lab":        {"internal/control", "internal/link", "internal/peer", "vrrp"},
	"cmd/applianctl":      {"internal/appliance", "internal/guard", "internal/config", "internal/control", "internal/lab", "internal/peer"},
	"integration":         {"internal/control", "internal/lab"},
	"bench/contest":       nil,
	"bench/kernel":        {"bench/contest", "l4/kernel"},
	"bench/l4":            {"bench/contest"},
	"bench/l7":            {"bench/contest"},
}

// confined lists the libraries that only some packages may import.
var confined = map[string][]string{
	"github.com/vishvananda/netlink": {"internal/link"},
	"github.com/vishvananda/netns":   {"internal/link"},
	"github.com/mdlayher/packet":     {"internal/link"},
	"github.com/mdlayher/ndp":        {"internal/link"},
	"github.com/BurntSushi/toml":     {"internal/config"},
	"github.com/miekg/dns":           {"internal/resolve"},
	"github.com/spf13/cobra":         {"cmd/applianctl"},

	"github.com/prometheus/client_golang": {"internal/metrics"},
	"github.com/cilium/ebpf":              {"l4/kernel", "internal/steer", "internal/ingress"},
}

func TestImportsKeepTheLayers(t *testing.T) {
	const module = "appliance/"
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports", module+"...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	d := json.NewDecoder(bytes.NewReader(out))
	seen := 0
	for {
		var p struct {
			ImportPath string
			Imports    []string
		}
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		seen++
		name := strings.TrimPrefix(p.ImportPath, module)
		allowed, known := layers[name]
		if !known {
			t.Errorf("package %s has no place in the layers; give it one", name)
			continue
		}
		for _, imported := range p.Imports {
			if ours, ok := strings.CutPrefix(imported, module); ok && !slices.Contains(allowed, ours) {
				t.Errorf("%s must not import %s", name, ours)
			}
			for library, owners := range confined {
				if (imported == library || strings.HasPrefix(imported, library+"/")) && !slices.Contains(owners, name) {
					t.Errorf("%s must not import %s; only %s may", name, library, strings.Join(owners, " and "))
				}
			}
		}
	}
	if seen < 10 {
		t.Errorf("go list found %d packages; the test looks at the wrong place", seen)
	}
}

func TestLayersHaveNoCircle(t *testing.T) {
	var visit func(name string, path []string)
	visit = func(name string, path []string) {
		if slices.Contains(path, name) {
			t.Fatalf("circle: %s", strings.Join(append(path, name), " -> "))
		}
		for _, below := range layers[name] {
			visit(below, append(slices.Clone(path), name))
		}
	}
	for name := range layers {
		visit(name, nil)
	}
}
