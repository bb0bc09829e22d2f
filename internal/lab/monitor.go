package lab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"appliance/internal/link"
)

// probeInterval is how often a monitor asks; the resolution of what it reports.
const probeInterval = 20 * time.Millisecond

// Monitor asks a LAN every 20 ms who has an address, and notes which hosts
// answer. Its ARP requests come from 0.0.0.0, as RFC 5227's probes do, so no
// neighbour table learns from them. Its neighbour solicitations come from one
// address of its own, for those from :: are answered to everybody, and it would
// not be seen which one was meant.
//
// A host that answers is known by the port that its answer came in by, and the
// question by the hardware address to which it was answered: each has its own.
// So an answer that is late, on a busy machine, is never counted for another
// moment, nor one host for another.
type Monitor struct {
	address netip.Addr
	tap     *link.Tap
	sw      net.HardwareAddr // the station the requests come from
	bridge  int              // the index of the bridge they leave by
	ports   map[int]string   // hosts by the index of their port
	stop    chan struct{}
	asking  chan struct{} // closed when ask has ended
	hearing chan struct{} // closed when hear has ended
	err     error         // why hear ended; set before hearing is closed

	mu     sync.Mutex
	probes []probe
}

// probe is one question and who answered it.
type probe struct {
	sent      time.Time
	failed    bool // it could not be sent
	answerers []string
}

// newMonitor starts asking for an address by a bridge of the switch. Close ends
// it.
func newMonitor(sw *Host, bridge string, mac net.HardwareAddr, ports map[int]string, address netip.Addr) (*Monitor, error) {
	m := &Monitor{
		address: address, sw: mac, ports: ports,
		stop: make(chan struct{}), asking: make(chan struct{}), hearing: make(chan struct{}),
	}
	var err error
	if m.bridge, err = sw.Network.Index(bridge); err != nil {
		return nil, fmt.Errorf("monitor: %w", err)
	}
	err = sw.Do(func() (err error) {
		m.tap, err = link.OpenTap()
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("monitor: %w", err)
	}
	go m.ask()
	go m.hear()
	return m, nil
}

func (m *Monitor) ask() {
	defer close(m.asking)
	tick := time.NewTicker(probeInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			m.probe()
		case <-m.stop:
			return
		}
	}
}

func (m *Monitor) probe() {
	m.mu.Lock()
	number := len(m.probes)
	m.probes = append(m.probes, probe{sent: time.Now()})
	m.mu.Unlock()
	if err := m.tap.Send(m.bridge, m.question(probeMAC(number))); err != nil {
		m.mu.Lock()
		m.probes[number].failed = true
		m.mu.Unlock()
	}
}

// question returns the frame that asks for the address, to be answered to mac.
func (m *Monitor) question(mac net.HardwareAddr) []byte {
	if m.address.Is6() {
		return appendSolicitation(nil, m.sw, mac, m.address)
	}
	request := arp{
		operation: arpRequest,
		senderMAC: mac,
		sender:    netip.IPv4Unspecified(),
		targetMAC: make(net.HardwareAddr, 6),
		target:    m.address,
	}
	return request.appendTo(nil, m.sw, broadcastMAC)
}

// answer returns the address that a frame says is at its sender, and to which
// station it does.
func answer(frame []byte) (address netip.Addr, to net.HardwareAddr, ok bool) {
	if a, ok := parseARP(frame); ok && a.operation == arpReply {
		return a.sender, a.targetMAC, true
	}
	if target, solicited, ok := parseNA(frame); ok && solicited {
		return target, frame[:6], true
	}
	return netip.Addr{}, nil, false
}

// probeMAC returns the hardware address that probe number wants its answer at:
// locally administered, of nobody, and the number in its last four bytes.
func probeMAC(number int) net.HardwareAddr {
	return binary.BigEndian.AppendUint32([]byte{0x02, 'p'}, uint32(number))
}

// probeNumber is probeMAC's reverse.
func probeNumber(mac net.HardwareAddr) (number int, ok bool) {
	if mac[0] != 0x02 || mac[1] != 'p' {
		return 0, false
	}
	return int(binary.BigEndian.Uint32(mac[2:])), true
}

func (m *Monitor) hear() {
	defer close(m.hearing)
	buf := make([]byte, 2048)
	for {
		f, err := m.tap.Read(buf)
		if err != nil {
			m.err = err
			return
		}
		host, known := m.ports[f.Port]
		address, to, ok := answer(f.Data)
		if !known || !ok || address != m.address {
			continue
		}
		if number, ok := probeNumber(to); ok {
			m.answered(number, host)
		}
	}
}

func (m *Monitor) answered(number int, host string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if number >= len(m.probes) || slices.Contains(m.probes[number].answerers, host) {
		return
	}
	m.probes[number].answerers = append(m.probes[number].answerers, host)
}

// Interval is a stretch of consecutive probes that went alike: it was so at
// least from From to To, the times of the first and the last of them.
type Interval struct {
	From, To time.Time
	// Hosts are those that answered during it, in the order of their answers.
	Hosts []string
	// Probes is how many probes it consists of.
	Probes int
}

// Length returns the time from the first probe to the last.
func (i Interval) Length() time.Duration { return i.To.Sub(i.From) }

// DualAnswerers returns the intervals in which two hosts or more answered for
// the address, of two probes at least. A single probe with two answers may be
// the very moment of a hand-over.
func (m *Monitor) DualAnswerers() []Interval {
	return m.intervals(2, func(p probe) bool { return len(p.answerers) > 1 })
}

// Silences returns the intervals in which nobody answered, of one probe or more.
func (m *Monitor) Silences() []Interval {
	return m.intervals(1, func(p probe) bool { return len(p.answerers) == 0 })
}

func (m *Monitor) intervals(atLeast int, match func(probe) bool) []Interval {
	var list []Interval
	var current Interval
	flush := func() {
		if current.Probes >= atLeast {
			list = append(list, current)
		}
		current = Interval{}
	}
	for _, p := range m.settled() {
		if !match(p) {
			flush()
			continue
		}
		if current.Probes == 0 {
			current.From = p.sent
		}
		current.To = p.sent
		current.Probes++
		for _, h := range p.answerers {
			if !slices.Contains(current.Hosts, h) {
				current.Hosts = append(current.Hosts, h)
			}
		}
	}
	flush()
	return list
}

// Answerers returns the hosts that answered the latest probe sent at or after
// since; ok is false if there is none yet that had the time to be answered.
func (m *Monitor) Answerers(since time.Time) (hosts []string, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range slices.Backward(m.probes) {
		if p.sent.Before(since) {
			break
		}
		if p.settled() {
			return slices.Clone(p.answerers), true
		}
	}
	return nil, false
}

// LastAnswer returns when the latest probe was sent that a host has answered.
func (m *Monitor) LastAnswer(host string) (sent time.Time, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range slices.Backward(m.probes) {
		if slices.Contains(p.answerers, host) {
			return p.sent, true
		}
	}
	return time.Time{}, false
}

// settled returns a copy of the probes that are settled.
func (m *Monitor) settled() []probe {
	m.mu.Lock()
	defer m.mu.Unlock()
	list := make([]probe, 0, len(m.probes))
	for _, p := range m.probes {
		if p.settled() {
			p.answerers = slices.Clone(p.answerers)
			list = append(list, p)
		}
	}
	return list
}

// settled reports whether the probe went out and had the time to be answered.
func (p probe) settled() bool { return !p.failed && time.Since(p.sent) >= probeInterval/2 }

// Close ends the monitor; what it noted stays readable. The error tells if it
// had ended before.
func (m *Monitor) Close() error {
	close(m.stop)
	<-m.asking
	err := m.tap.Close()
	<-m.hearing
	if errors.Is(m.err, os.ErrClosed) {
		return err
	}
	return errors.Join(fmt.Errorf("monitor: %w", m.err), err)
}
