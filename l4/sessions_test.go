package l4

import (
	"testing"
)

func TestSessionsAreListedAndCut(t *testing.T) {
	h := newHouse(t)
	p := h.serve(Timeouts{}, backend(t, echo))
	a, b := h.dial(entrance), h.dial(entrance)
	say(t, a, "12345")
	expect(t, a, "12345")
	say(t, b, "x")
	expect(t, b, "x")
	eventually(t, "both have carried what was sent", func() bool {
		l := h.engine.Sessions()
		return len(l) == 2 && l[0].BytesToClient == 5 && l[1].BytesToClient == 1
	})
	first := h.engine.Sessions()[0]
	if first.Client.String() != a.LocalAddr().String() || first.Local.String() != a.RemoteAddr().String() ||
		first.Server != p.Servers()[0].Label() || first.State != "relaying" || first.Service != "web" {
		t.Errorf("the first session is %+v", first)
	}
	if n := h.engine.CutSessions(func(s SessionInfo) bool { return s.ID == first.ID }); n != 1 {
		t.Errorf("%d were cut, want 1", n)
	}
	expectReset(t, a)
	if got := h.end(); got != "cut by command" {
		t.Errorf("it ended with %q", got)
	}
	say(t, b, "y")
	expect(t, b, "y")
	if st := h.engine.Stats()[0]; st.Broken != 1 || st.Current != 1 {
		t.Errorf("%+v, want one broken, one left", st)
	}
}
