package kernel

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
)

// TestObjectIsOfTheSource compiles the program and compares it with the object
// that is committed. Another clang than that of Debian 12 makes another one.
func TestObjectIsOfTheSource(t *testing.T) {
	t.Parallel()
	version, err := exec.Command("clang", "--version").Output()
	if err != nil || !bytes.Contains(version, []byte("clang version 14.")) {
		missing(t, "clang 14")
	}
	generate, err := os.ReadFile("generate.go")
	if err != nil {
		t.Fatal(err)
	}
	command := regexp.MustCompile(`(?m)^//go:generate (go tool bpf2go .*)$`).FindSubmatch(generate)
	if command == nil {
		t.Fatal("generate.go has no command")
	}
	dir := t.TempDir()
	run := exec.Command("sh", "-c", string(command[1]))
	run.Env = append(os.Environ(), "GOPACKAGE=kernel")
	run.Args[2] = regexp.MustCompile(`bpf2go `).ReplaceAllLiteralString(run.Args[2], "bpf2go -output-dir "+dir+" ")
	if out, err := run.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", run.Args[2], err, out)
	}
	for _, name := range []string{"program_bpfel.o", "program_bpfeb.o", "program_bpfel.go", "program_bpfeb.go"} {
		got, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		want, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is not what the source gives; run make bpf and commit it", name)
		}
	}
}
