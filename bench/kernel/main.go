// Command kernel compares the kernel path with plain forwarding by the kernel,
// and with proxies: HAProxy, nginx stream and our own. Client, balancer and server
// are network namespaces joined by veth pairs; one contestant after the other, in
// several rounds. It writes its sections of docs/benchmarks.md. Run it as root, by
// `make bench-kernel`.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"time"

	"golang.org/x/sys/unix"

	"appliance/bench/contest"
)

var (
	binary = flag.String("appliance", "build/applianctl", "the binary whose proxy is measured")
	report = flag.String("report", "", "the file whose sections kernel-two and kernel-one are to be written; none: only print")
	rounds = flag.Int("rounds", 5, "how many times everything is measured")
	long   = flag.Duration("long", 2*time.Second, "how long each measurement lasts, in whole seconds")
	arms   = flag.String("arms", "both", "two: client and server on both sides of the balancer; one: all on one network; both")
	only   = flag.String("only", "", "the workload to measure; all if empty")
	one    = flag.String("contestant", "", "the contestant to measure, beside those that others are compared with; all if empty")
	inside = flag.Bool("inside", false, "already in namespaces of its own")
)

func main() {
	flag.Parse()
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench kernel:", err)
		os.Exit(1)
	}
}

func run() error {
	if !*inside {
		// A mount namespace of its own, too: what ip(8) makes in /run is gone with it.
		cmd := exec.Command("unshare", append([]string{"--net", "--mount", os.Args[0], "-inside"}, os.Args[1:]...)...)
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		return cmd.Run()
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", 0, ""); err != nil {
		return fmt.Errorf("/run: %w", err)
	}
	if _, err := contest.Prepare(); err != nil {
		return err
	}
	for _, a := range []string{"two", "one"} {
		if *arms != a && *arms != "both" {
			continue
		}
		text, err := measureArms(a)
		if err != nil {
			return fmt.Errorf("%s: %w", a, err)
		}
		fmt.Print(text)
		if *report != "" {
			if err := contest.WriteSection(*report, "kernel-"+a, text); err != nil {
				return err
			}
		}
	}
	return nil
}

// measureArms measures everything in one topology and returns the section.
func measureArms(name string) (string, error) {
	dir, err := os.MkdirTemp("", "bench-kernel-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	n, err := build(name)
	defer n.remove()
	if err != nil {
		return "", err
	}
	contestants, err := startAll(n, dir)
	defer func() {
		for _, c := range contestants {
			c.stop()
		}
	}()
	if err != nil {
		return "", err
	}
	t := table{arms: name, contestants: contestants, samples: make(map[string]map[string][]sample)}
	for round := range *rounds {
		for _, w := range workloads {
			if *only != "" && *only != w.name {
				continue
			}
			t.samples[w.name] = orNew(t.samples[w.name])
			for i := range contestants {
				c := contestants[(i+round)%len(contestants)] // who is first changes
				s, err := w.measure(c)
				if err != nil {
					return "", fmt.Errorf("%s, %s: %w", c.name, w.name, err)
				}
				t.samples[w.name][c.name] = append(t.samples[w.name][c.name], s)
			}
		}
	}
	return t.text(), nil
}

func orNew(m map[string][]sample) map[string][]sample {
	if m == nil {
		return make(map[string][]sample)
	}
	return m
}
