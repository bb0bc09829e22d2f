package vrrp

import (
	"testing"
	"time"
)

// version2 makes the bench's machine one of version 2 with an interval of 3 s.
func version2(c *Config) {
	c.Version, c.AdvertInterval = 2, 3*time.Second
}

func TestSkewTimeOfVersion2IsOfOneSecondWhateverTheInterval(t *testing.T) {
	for _, tt := range []struct {
		priority int
		want     time.Duration
	}{{254, 2 * time.Second / 256}, {100, 156 * time.Second / 256}, {1, 255 * time.Second / 256}} {
		b := newBench(t, version2, func(c *Config) { c.Priority = tt.priority })
		b.wantDown(9*time.Second + tt.want)
		b.hear(200)
		b.hear(0)
		b.wantDown(tt.want)
	}
}

func TestBackupOfVersion2DoesNotLearnTheInterval(t *testing.T) {
	const down = 9*time.Second + 156*time.Second/256
	b := newBench(t, version2)
	b.hear(200) // says 100 ms
	b.wantDown(down)
	b.run(down)
	b.acquired()
	b.hear(200) // the active router gives way
	b.wantDown(down)
}

func TestActiveOfVersion2WasSilentForItsOwnTimers(t *testing.T) {
	// The skew of one second is most of what a backup waits for.
	b := newActive(t, func(c *Config) { c.Version, c.AdvertInterval, c.Priority = 2, 100*ms, 1 })
	b.now = b.m.holding.sentAt.Add(300*ms + 255*time.Second/256)
	wantKinds(t, b.do(Tick{}), "send 1, renew, announce")
	b.acquired()
	b.now = b.m.holding.sentAt.Add(300*ms + 255*time.Second/256 + 1)
	wantKinds(t, b.do(Tick{}), "late")
}

// Until the active router has the new interval as well its adverts are refused:
// it gets the whole time for that.
func TestReconfiguredIntervalOfVersion2RestartsTheTimer(t *testing.T) {
	b := newBench(t, version2)
	b.hear(200)
	b.run(8 * time.Second)
	cfg := b.m.cfg
	cfg.AdvertInterval = 5 * time.Second
	b.do(Reconfigure{Config: cfg})
	b.wantDown(15*time.Second + 156*time.Second/256)
	b.run(time.Second)
	b.do(Reconfigure{Config: cfg}) // nothing new
	b.wantDown(14*time.Second + 156*time.Second/256)
}

func TestReconfiguredPasswordIsSentAtOnce(t *testing.T) {
	b := newActive(t, func(c *Config) { c.Version, c.AdvertInterval = 2, time.Second })
	cfg := b.m.cfg
	cfg.Authentication = pass1111
	wantKinds(t, b.do(Reconfigure{Config: cfg}), "send 100")
}
