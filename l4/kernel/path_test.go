package kernel

import "testing"

func TestOpen(t *testing.T) {
	t.Parallel()
	p, err := Open(Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
}
