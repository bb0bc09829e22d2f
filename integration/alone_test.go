package integration

import (
	"context"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"appliance/internal/control"
	"appliance/internal/lab"
)

// alone is an appliance on a host that has nothing but its loopback interface,
// for what concerns neither a pair nor a network.
type alone struct {
	*lab.Host
	t       *testing.T
	process *lab.Process
}

// newAlone makes a host, which ends with the test.
func newAlone(t *testing.T) *alone {
	t.Helper()
	return &alone{Host: badConfigHost(t, "lb01"), t: t}
}

// write writes a file of the host, and returns its path there.
func (a *alone) write(name, text string) string {
	a.t.Helper()
	path := "/run/appliance/" + name
	if err := a.WriteFile(path, []byte(text)); err != nil {
		a.t.Fatal(err)
	}
	return path
}

// read returns a file of the host, empty if there is none.
func (a *alone) read(name string) string {
	b, _ := os.ReadFile(a.Path("/run/appliance/" + name))
	return string(b)
}

// start runs the appliance with a configuration until it is ready.
func (a *alone) start(config string) {
	a.t.Helper()
	a.write("appliance.toml", config)
	log, err := os.Create(a.Path(lab.LogPath))
	if err != nil {
		a.t.Fatal(err)
	}
	defer log.Close()
	cmd := a.Command("applianctl", "run", "--config", lab.ConfigPath, "--socket", lab.SocketPath, "--events", lab.EventsPath)
	cmd.Stdout, cmd.Stderr = log, log
	if a.process, err = a.Start(cmd); err != nil {
		a.t.Fatal(err)
	}
	a.t.Cleanup(func() {
		if a.t.Failed() {
			a.t.Logf("log of the appliance:\n%s", a.read("run.log"))
		}
	})
	eventually(a.t, 30*time.Second, "the appliance is ready", func() bool {
		s, err := control.NewClient(a.Path(lab.SocketPath)).Status(a.t.Context())
		return err == nil && s.Ready
	})
}

// status returns its status.
func (a *alone) status() control.Status {
	a.t.Helper()
	s, err := control.NewClient(a.Path(lab.SocketPath)).Status(a.t.Context())
	if err != nil {
		a.t.Fatal(err)
	}
	return s
}

// command runs a verb of applianctl, which must succeed.
func (a *alone) command(args ...string) string {
	a.t.Helper()
	return a.run("applianctl", append(args, "--socket", lab.SocketPath)...)
}

// run runs a program on the host, which must succeed, and returns what it wrote.
func (a *alone) run(name string, args ...string) string {
	a.t.Helper()
	ctx, cancel := context.WithTimeout(a.t.Context(), 5*time.Minute)
	defer cancel()
	out, err := a.Output(ctx, name, args...)
	if err != nil {
		a.t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return out
}

// stop ends the appliance.
func (a *alone) stop() {
	a.t.Helper()
	if err := a.process.Signal(syscall.SIGTERM); err != nil {
		a.t.Fatal(err)
	}
	select {
	case <-a.process.Done():
	case <-time.After(5 * time.Minute):
		a.t.Fatal("the appliance does not end")
	}
}
