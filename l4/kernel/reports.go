package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"
	"unsafe"

	"github.com/cilium/ebpf/ringbuf"
)

// reportPause is how long changes are gathered before they are told: waking up
// for each of thousands in a second would cost more than they do.
const reportPause = 5 * time.Millisecond

// reportBatch is how many changes are told at once.
const reportBatch = 1024

// reports tells what happens to flows. The program writes it into a ring; run
// reads it.
type reports struct {
	path   *Path
	reader *ringbuf.Reader

	mu   sync.Mutex // held while tell runs
	tell func([]Change)
}

func newReports(p *Path) (*reports, error) {
	reader, err := ringbuf.NewReader(p.objects.Changes)
	if err != nil {
		return nil, fmt.Errorf("kernel path: %w", err)
	}
	return &reports{path: p, reader: reader}, nil
}

// OnChanges has f called with what happens to flows from now on, in batches, one
// after the other, by goroutines of the Path. nil ends it: after it has returned,
// f is not called any more. A change is told about 5 ms after it happened. f must
// not keep the slice, nor call OnChanges or Close. While f takes long, changes
// wait in the kernel; what finds no room there is lost and counted
// (Stats.ChangesLost), and made good by the next Refreshed.
func (p *Path) OnChanges(f func([]Change)) {
	p.reports.mu.Lock()
	p.reports.tell = f
	p.reports.mu.Unlock()

	// If this did not work, the flows would still be told by Refreshed.
	p.setSettings(func(s *programSettings) {
		s.Changes = 0
		if f != nil {
			s.Changes = 1
		}
	})
}

// deliver tells changes to whoever wants to know them.
func (r *reports) deliver(changes []Change) {
	if len(changes) == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.tell != nil {
		r.tell(changes)
	}
}

// close ends run.
func (r *reports) close() { r.reader.Close() }

// run reads changes and delivers them until close.
func (r *reports) run() {
	var record ringbuf.Record
	changes := make([]Change, 0, reportBatch)
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		// The kernel wakes a reader that has read everything, and nobody else. So
		// while this one pauses, the program does not wake it in vain.
		if err := r.reader.ReadInto(&record); err != nil {
			if errors.Is(err, ringbuf.ErrClosed) {
				return
			}
			continue
		}
		changes = r.decode(changes[:0], record.RawSample)
		r.reader.SetDeadline(time.Unix(1, 0)) // take what is there
		for len(changes) < reportBatch {
			if err := r.reader.ReadInto(&record); err != nil {
				break
			}
			changes = r.decode(changes, record.RawSample)
		}
		r.reader.SetDeadline(time.Time{})
		r.deliver(changes)
		if len(changes) == reportBatch {
			continue
		}
		pause.Reset(reportPause)
		select {
		case <-pause.C:
		case <-r.path.stop:
			return
		}
	}
}

// decode adds the change that the program wrote.
func (r *reports) decode(changes []Change, sample []byte) []Change {
	const size = int(unsafe.Sizeof(programChange{}))
	if len(sample) < size {
		return changes
	}
	var c programChange
	if _, err := binary.Decode(sample[:size], binary.NativeEndian, &c); err != nil {
		return changes
	}
	f := programFlow{Server: c.Server, Flags: c.Flags, Mode: c.Mode, Sport: c.Port}
	flow, ok := r.path.flow(&c.Key, &f, 0)
	if !ok {
		return changes
	}
	return append(changes, Change{Kind: ChangeKind(c.Kind), Flow: flow})
}
