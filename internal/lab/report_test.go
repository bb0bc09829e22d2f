package lab_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"appliance/internal/lab"
)

func TestReportCountsByTheStart(t *testing.T) {
	zero := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	at := func(ms int) time.Time { return zero.Add(time.Duration(ms) * time.Millisecond) }
	request := func(start, end int, kind lab.OutcomeKind) lab.Outcome {
		o := lab.Outcome{Start: at(start), End: at(end), Kind: kind}
		if kind == lab.OK {
			o.Server = "web1"
		} else {
			o.Err = errors.New(string(kind))
		}
		return o
	}
	outcomes := []lab.Outcome{
		request(90, 110, lab.OK),
		request(99, 5000, lab.TimedOut),
		request(100, 130, lab.OK), // the first of the stretch
		request(120, 400, lab.Reset),
		request(130, 125, lab.Refused),
		request(140, 160, lab.OK),
		request(199, 500, lab.OK),
		request(200, 201, lab.Refused), // the first behind it
	}
	r := lab.Sum(outcomes, at(100), at(200))
	if r.Requests != 5 || r.Failures() != 2 || r.Kinds[lab.OK] != 3 || r.Servers["web1"] != 3 || r.String() != "1 refused, 1 reset" {
		t.Errorf("%d requests, %s, answered by %v", r.Requests, r, r.Servers)
	}
	if r.FirstError == nil || r.FirstError.Error() != string(lab.Reset) {
		t.Errorf("the first failure is %v", r.FirstError)
	}
	if r.Gap != 40*time.Millisecond || !r.GapFrom.Equal(at(160)) {
		t.Errorf("no answer for %v from %v on, want 40 ms up to the end", r.Gap, r.GapFrom.Sub(zero))
	}
	// Stretches that follow each other share no request and lose none.
	all := 0
	for from := 0; from < 300; from += 100 {
		all += lab.Sum(outcomes, at(from), at(from+100)).Requests
	}
	if all != len(outcomes) {
		t.Errorf("three stretches have %d requests, want %d", all, len(outcomes))
	}
	if r := lab.Sum(nil, at(0), at(70)); r.Requests != 0 || r.Gap != 70*time.Millisecond || r.String() != "no failures" {
		t.Errorf("of nothing: %+v", r)
	}
}

func TestStoryFailsWithAStepThatPromisedMore(t *testing.T) {
	now := time.Now()
	good := lab.Outcome{Start: now, End: now, Kind: lab.OK}
	bad := lab.Outcome{Start: now, End: now, Kind: lab.TimedOut, Err: errors.New("no answer")}
	if err := lab.Flawless("failover", lab.Sum([]lab.Outcome{good, good}, now, now.Add(time.Second))); err != nil {
		t.Errorf("a step without failures: %v", err)
	}
	err := lab.Flawless("failover", lab.Sum([]lab.Outcome{good, bad}, now, now.Add(time.Second)))
	if err == nil || !strings.Contains(err.Error(), "failover: of 2 requests 1 timed out, first: no answer") {
		t.Errorf("a step with a failure: %v", err)
	}
}
