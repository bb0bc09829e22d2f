package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"appliance/internal/lab"
)

// binaryVariable tells the process in the sandbox where the appliance is that
// the one outside has built.
const binaryVariable = "APPLIANCE_TEST_BINARY"

// TestMain builds the appliance and runs the tests in a sandbox. There is no
// skipping: where the kernel refuses namespaces nothing has been tested.
func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	if !lab.Inside() {
		dir, err := os.MkdirTemp("", "appliance-integration-")
		if err != nil {
			return fail(err)
		}
		defer os.RemoveAll(dir)
		// Servers that leave root's rights behind must reach what is in it.
		if err := os.Chmod(dir, 0o755); err != nil {
			return fail(err)
		}
		binary := filepath.Join(dir, "applianctl")
		build := exec.Command("go", "build", "-o", binary, "appliance/cmd/applianctl")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			return fail(fmt.Errorf("building the appliance: %w\n%s", err, out))
		}
		os.Setenv(binaryVariable, binary)
	}
	inside, code, err := lab.Sandbox()
	switch {
	case err != nil:
		return fail(err)
	case !inside:
		return code
	}
	return m.Run()
}

func fail(err error) int {
	fmt.Fprintln(os.Stderr, err)
	return 1
}
