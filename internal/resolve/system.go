package resolve

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// hostsTTL is for how long what a file says is believed.
const hostsTTL = 5 * time.Second

// System is the Lookup that this machine describes in two files: hosts names
// hosts, as hosts(5) has it, and conf the servers to ask for all others and how,
// as resolv.conf(5) has it. Both are read anew for each lookup, so they may
// change.
type System struct{ Hosts, Conf string }

// Default is the system's own.
var Default = System{Hosts: "/etc/hosts", Conf: "/etc/resolv.conf"}

// Lookup looks name up. IPv6 addresses are asked for only where there is none of
// IPv4.
func (s System) Lookup(ctx context.Context, name string) (Found, error) {
	return s.lookup(ctx, name, "53")
}

// lookup is Lookup with the port of the servers, which the file cannot name.
func (s System) lookup(ctx context.Context, name, port string) (Found, error) {
	if addresses := s.fromHosts(name); len(addresses) > 0 {
		return Found{addresses, hostsTTL}, nil
	}
	conf, err := dns.ClientConfigFromFile(s.Conf)
	if err != nil {
		return Found{}, fmt.Errorf("%s: %s cannot be read: %w", name, s.Conf, err)
	}
	if len(conf.Servers) == 0 {
		return Found{}, fmt.Errorf("%s: %s names no server", name, s.Conf)
	}
	conf.Port = port
	for _, full := range conf.NameList(name) {
		for _, kind := range []uint16{dns.TypeA, dns.TypeAAAA} {
			found, err := ask(ctx, conf, full, kind)
			if err == nil {
				return found, nil
			}
			if !errors.Is(err, ErrDenied) {
				return Found{}, fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	return Found{}, fmt.Errorf("%s: %w", name, ErrDenied)
}

// fromHosts returns the addresses that the file of hosts has for a name.
func (s System) fromHosts(name string) (addresses []netip.Addr) {
	f, err := os.Open(s.Hosts)
	if err != nil {
		return nil // there need be none
	}
	defer f.Close()
	name = strings.TrimSuffix(name, ".")
	for lines := bufio.NewScanner(f); lines.Scan(); {
		line, _, _ := strings.Cut(lines.Text(), "#")
		fields := strings.Fields(line)
		if len(fields) < 2 || !slices.ContainsFunc(fields[1:], func(n string) bool { return strings.EqualFold(n, name) }) {
			continue
		}
		if a, err := netip.ParseAddr(fields[0]); err == nil && usable(a) {
			addresses = append(addresses, a)
		}
	}
	return addresses
}

// ask asks the servers of conf, one after the other, for the addresses of a full
// name, until one knows.
func ask(ctx context.Context, conf *dns.ClientConfig, name string, kind uint16) (Found, error) {
	var last error
	for range max(1, conf.Attempts) {
		for _, server := range conf.Servers {
			answer, err := exchange(ctx, net.JoinHostPort(server, conf.Port), time.Duration(conf.Timeout)*time.Second, name, kind)
			if ctx.Err() != nil {
				return Found{}, ctx.Err()
			}
			if err != nil {
				last = fmt.Errorf("name server %s: %s", server, inWords(err))
				continue
			}
			switch answer.Rcode {
			case dns.RcodeSuccess:
				return addressesIn(answer)
			case dns.RcodeNameError:
				return Found{}, ErrDenied
			}
			last = fmt.Errorf("name server %s answers %s", server, dns.RcodeToString[answer.Rcode])
		}
	}
	return Found{}, last
}

// exchange puts one question to one server, and again by TCP if the answer is too
// long for a datagram.
func exchange(ctx context.Context, server string, timeout time.Duration, name string, kind uint16) (*dns.Msg, error) {
	question := new(dns.Msg)
	question.SetQuestion(name, kind)
	question.Id = uint16(rand.Uint32())
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	client := &dns.Client{Timeout: timeout}
	answer, _, err := client.ExchangeContext(ctx, question, server)
	if err == nil && answer.Truncated {
		client.Net = "tcp"
		answer, _, err = client.ExchangeContext(ctx, question, server)
	}
	if err == nil && (len(answer.Question) != 1 || !strings.EqualFold(answer.Question[0].Name, name) || answer.Question[0].Qtype != kind) {
		err = errors.New("an answer to another question")
	}
	return answer, err
}

// addressesIn returns the addresses of an answer, and the least TTL of all that
// leads to them.
func addressesIn(answer *dns.Msg) (Found, error) {
	found, ttl := Found{}, uint32(MaxTTL/time.Second)
	for _, record := range answer.Answer {
		var ip net.IP
		switch r := record.(type) {
		case *dns.A:
			ip = r.A
		case *dns.AAAA:
			ip = r.AAAA
		case *dns.CNAME:
		default:
			continue
		}
		ttl = min(ttl, record.Header().Ttl)
		if a, ok := netip.AddrFromSlice(ip); ok && usable(a.Unmap()) {
			found.Addresses = append(found.Addresses, a.Unmap())
		}
	}
	found.TTL = time.Duration(ttl) * time.Second
	if len(found.Addresses) == 0 {
		return Found{}, ErrDenied
	}
	return found, nil
}

// usable reports whether a can be the address of one machine.
func usable(a netip.Addr) bool {
	linkLocal := a.Is6() && a.IsLinkLocalUnicast() && a.Zone() == ""
	return !a.IsUnspecified() && !a.IsMulticast() && !linkLocal
}

// inWords says for a human why a server has not answered.
func inWords(err error) string {
	var slow net.Error
	var op *net.OpError
	switch {
	case errors.As(err, &slow) && slow.Timeout():
		return "no answer in time"
	case errors.As(err, &op):
		return op.Err.Error()
	}
	return err.Error()
}
