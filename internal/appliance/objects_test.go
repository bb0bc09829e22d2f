package appliance

import (
	"bytes"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"testing"
)

// TestObjectsAreOfTheirSources compiles the BPF programs and compares them with the
// objects that are committed. Another clang than that of Debian 12 makes others.
func TestObjectsAreOfTheirSources(t *testing.T) {
	t.Parallel()
	version, err := exec.Command("clang", "--version").Output()
	if err != nil || !bytes.Contains(version, []byte("clang version 14.")) {
		if os.Getenv("CI") == "true" {
			t.Fatal("this machine lacks clang 14")
		}
		t.Skip("this machine lacks clang 14")
	}
	for name, stem := range map[string]string{"l4/kernel": "program", "internal/steer": "steer"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			objectsAreOfTheirSource(t, name, stem)
		})
	}
}

// objectsAreOfTheirSource runs what generate.go of a package says.
func objectsAreOfTheirSource(t *testing.T, name, stem string) {
	dir := filepath.Join("../..", name)
	generate, err := os.ReadFile(filepath.Join(dir, "generate.go"))
	if err != nil {
		t.Fatal(err)
	}
	command := regexp.MustCompile(`(?m)^//go:generate go tool bpf2go (.*)$`).FindSubmatch(generate)
	if command == nil {
		t.Fatal("generate.go has no command")
	}
	made := t.TempDir()
	// As make bpf does.
	run := exec.Command("sh", "-c", "CPATH=/usr/include/$(uname -m)-linux-gnu go tool bpf2go -output-dir "+made+" "+string(command[1]))
	run.Dir = dir
	run.Env = append(os.Environ(), "GOPACKAGE="+path.Base(name))
	if out, err := run.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", run.Args[2], err, out)
	}
	for _, file := range []string{stem + "_bpfel.o", stem + "_bpfeb.o", stem + "_bpfel.go", stem + "_bpfeb.go"} {
		got, err := os.ReadFile(filepath.Join(made, file))
		if err != nil {
			t.Fatal(err)
		}
		want, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is not what the source gives; run make bpf and commit it", file)
		}
	}
}
