package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// complainRate is how many errors are sent in a second, at most (RFC 1812
// section 4.3.2.8, RFC 4443 section 2.4 (f)).
const complainRate = 100

// The kinds of trouble of the program.
const (
	troubleTooBig = 1
	troubleTTL    = 2
)

// complaints tells the senders of packets that could not go on why: they are too
// big for the way out, or their TTL is over.
type complaints struct {
	reader *ringbuf.Reader
	stop   <-chan struct{} // closed when run is to end
	v4     *ipv4.PacketConn
	v6     *ipv6.PacketConn // nil where the kernel has no IPv6
}

func newComplaints(ring *ebpf.Map, stop <-chan struct{}) (*complaints, error) {
	reader, err := ringbuf.NewReader(ring)
	if err != nil {
		return nil, fmt.Errorf("kernel path: %w", err)
	}
	c := &complaints{reader: reader, stop: stop}
	conn, err := net.ListenPacket("ip4:icmp", "0.0.0.0")
	if err != nil {
		c.close()
		return nil, fmt.Errorf("kernel path: a socket for errors of ICMP: %w", err)
	}
	c.v4 = ipv4.NewPacketConn(conn)
	// Nothing is to be received.
	var none4 ipv4.ICMPFilter
	none4.SetAll(true)
	if err := c.v4.SetICMPFilter(&none4); err != nil {
		c.close()
		return nil, fmt.Errorf("kernel path: a socket for errors of ICMP: %w", err)
	}
	if conn, err := net.ListenPacket("ip6:ipv6-icmp", "::"); err == nil {
		c.v6 = ipv6.NewPacketConn(conn)
		var none6 ipv6.ICMPFilter
		none6.SetAll(true)
		if err := c.v6.SetICMPFilter(&none6); err != nil {
			c.close()
			return nil, fmt.Errorf("kernel path: a socket for errors of ICMPv6: %w", err)
		}
	}
	return c, nil
}

// close ends run.
func (c *complaints) close() {
	c.reader.Close()
	if c.v4 != nil {
		c.v4.Close()
	}
	if c.v6 != nil {
		c.v6.Close()
	}
}

// run sends errors until close.
func (c *complaints) run() {
	var record ringbuf.Record
	var second time.Time
	sent := 0
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		if err := c.reader.ReadInto(&record); err != nil {
			if errors.Is(err, ringbuf.ErrClosed) {
				return
			}
			continue
		}
		var t programTrouble
		size := int(unsafe.Sizeof(t))
		if len(record.RawSample) < size {
			continue
		}
		if _, err := binary.Decode(record.RawSample[:size], binary.NativeEndian, &t); err != nil {
			continue
		}
		if now := time.Now(); now.Sub(second) >= time.Second {
			second, sent = now, 0
		}
		// Who does not hear of it sends once more, and is told again.
		_ = c.send(&t)
		if sent++; sent < complainRate {
			continue
		}
		// Reading what may not be told would cost a processor in a flood. The ring
		// gets full instead.
		pause.Reset(time.Until(second.Add(time.Second)))
		select {
		case <-pause.C:
		case <-c.stop:
			return
		}
	}
}

// send sends the error about one packet to its sender, from the address that it
// was sent to.
func (c *complaints) send(t *programTrouble) error {
	if t.V6 != 0 {
		if c.v6 == nil {
			return nil
		}
		typ, code, mtu := byte(ipv6.ICMPTypePacketTooBig), byte(0), t.Mtu
		if t.Kind == troubleTTL {
			typ, mtu = byte(ipv6.ICMPTypeTimeExceeded), 0
		}
		from, to := net.IP(t.Packet[8:24]), net.IP(t.Packet[24:40])
		_, err := c.v6.WriteTo(icmpError(typ, code, mtu, t.Packet[:48]), &ipv6.ControlMessage{Src: to}, &net.IPAddr{IP: from})
		return err
	}
	typ, code, mtu := byte(ipv4.ICMPTypeDestinationUnreachable), byte(4), min(t.Mtu, 1<<16-1)
	if t.Kind == troubleTTL {
		typ, code, mtu = byte(ipv4.ICMPTypeTimeExceeded), 0, 0
	}
	from, to := net.IP(t.Packet[12:16]), net.IP(t.Packet[16:20])
	message := icmpError(typ, code, mtu, t.Packet[:28])
	binary.BigEndian.PutUint16(message[2:], checksum(message))
	_, err := c.v4.WriteTo(message, &ipv4.ControlMessage{Src: to}, &net.IPAddr{IP: from})
	return err
}

// icmpError returns an error of ICMP, or of ICMPv6, without its checksum, which
// the kernel adds for ICMPv6. In both, the MTU is in the last bytes of the header
// (RFC 1191 section 4, RFC 4443 section 3.2).
func icmpError(typ, code byte, mtu uint32, quoted []byte) []byte {
	message := make([]byte, 8, 8+len(quoted))
	message[0], message[1] = typ, code
	binary.BigEndian.PutUint32(message[4:], mtu)
	return append(message, quoted...)
}

// checksum returns the checksum of a message of even length (RFC 1071).
func checksum(message []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(message); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(message[i:]))
	}
	return ^uint16(fold(sum))
}
