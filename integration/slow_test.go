package integration

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// slowAttacks are slowhttptest's, each by 300 connections for 5 seconds.
var slowAttacks = map[string][]string{
	"slow head": {"-H", "-i", "1"},
	"slow body": {"-B", "-i", "1", "-s", "100000"},
	"slow read": {"-X", "-w", "512", "-y", "1024", "-n", "5", "-z", "32", "-k", "3"},
}

var slowVerdict = regexp.MustCompile(`service available:(?:\s|\x1b\[[\d;]*m)*([A-Z]+)`)

// The three attacks of slowhttptest do not keep the appliance from serving
// others, who fail never and hardly wait longer than they did before.
func TestSlowClients(t *testing.T) {
	t.Parallel()
	program := need(t, "slowhttptest", "slowhttptest")
	r := newBadClientRig(t)
	for _, s := range r.Servers {
		s.SetHandler(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
			if q.URL.Path == "/large" {
				io.CopyN(w, badClientZeros{}, 8<<20)
				return
			}
			io.Copy(io.Discard, q.Body)
			fmt.Fprintln(w, s.Name())
		}))
	}
	for name, args := range slowAttacks {
		t.Run(name, func(t *testing.T) {
			good := r.startGood()
			eventually(t, 20*time.Second, "100 good requests", func() bool { return good.count() >= 100 })
			before := good.percentile(0, 99)
			from := good.count()
			args := append([]string{"-c", "300", "-r", "150", "-l", "5", "-p", "5", "-u", "https://192.168.15.3/large"}, args...)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			var out strings.Builder
			cmd := r.Client.Command(program, args...)
			cmd.Stdout, cmd.Stderr = &out, &out
			err := r.Client.Run(ctx, cmd)
			during := good.percentile(from, 99)
			good.stop()
			verdicts := slowVerdict.FindAllStringSubmatch(out.String(), -1)
			if len(verdicts) == 0 {
				t.Fatalf("slowhttptest says nothing: %v\n%s", err, out.String())
			}
			if last := verdicts[len(verdicts)-1][1]; last != "YES" {
				t.Errorf("slowhttptest finds the service available: %s\n%s", last, out.String())
			}
			if len(good.failures) > 0 {
				t.Errorf("%d of %d good requests failed: %v", len(good.failures), good.count(), errors.Join(good.failures[:min(3, len(good.failures))]...))
			}
			if during > 10*before+time.Second {
				t.Errorf("99 of 100 good requests took up to %v, %v before", during, before)
			}
			t.Logf("99 of 100 good requests took up to %v, %v before", during.Round(time.Millisecond), before.Round(time.Millisecond))
		})
	}
}

// percentile returns how long at most so many in 100 took of the requests that
// have ended, the first ones left out.
func (g *badClientGood) percentile(without, percent int) time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	times := slices.Sorted(slices.Values(g.times[without:]))
	return times[len(times)*percent/100]
}
