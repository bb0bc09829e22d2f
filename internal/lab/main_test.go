package lab_test

import (
	"fmt"
	"os"
	"testing"

	"appliance/internal/lab"
)

// TestMain runs the tests in a sandbox. There is no skipping: where the kernel
// refuses namespaces the package has not been tested.
func TestMain(m *testing.M) {
	var files []*os.File
	if !lab.Inside() {
		switch os.Getenv(helper) {
		case "exec", "intrude":
			os.Exit(visit()) // these are for going into another's sandbox
		case "door":
			door, err := lab.OpenDoor()
			if err != nil {
				fail(err)
			}
			files = append(files, door)
		}
	}
	inside, code, err := lab.Sandbox(files...)
	if err != nil {
		fail(err)
	}
	if !inside {
		os.Exit(code)
	}
	os.Exit(m.Run())
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
