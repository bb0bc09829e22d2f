package health

import (
	"net"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// serveUDP answers each datagram with those that answer returns, until the test
// ends.
func serveUDP(t *testing.T, answer func(query []byte) [][]byte) netip.AddrPort {
	t.Helper()
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 64<<10)
		for {
			n, from, err := c.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			for _, a := range answer(buf[:n]) {
				_, _ = c.WriteToUDPAddrPort(a, from)
			}
		}
	}()
	t.Cleanup(func() { _ = c.Close(); <-done })
	return c.LocalAddr().(*net.UDPAddr).AddrPort()
}

// closedUDP is an address that refuses datagrams: a socket has it that is connected
// to somebody else, so that nobody else gets the port.
func closedUDP(t *testing.T) netip.AddrPort {
	t.Helper()
	loopback := net.IPv4(127, 0, 0, 1)
	c, err := net.DialUDP("udp", &net.UDPAddr{IP: loopback}, &net.UDPAddr{IP: loopback, Port: 9})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c.LocalAddr().(*net.UDPAddr).AddrPort()
}

// resolver answers every question with a code and records.
func resolver(t *testing.T, code dnsmessage.RCode, records ...dnsmessage.ResourceBody) netip.AddrPort {
	return serveUDP(t, func(query []byte) [][]byte {
		var m dnsmessage.Message
		if err := m.Unpack(query); err != nil {
			t.Errorf("the query cannot be read: %v", err)
			return nil
		}
		m.Header.Response, m.Header.RCode = true, code
		for _, r := range records {
			head := dnsmessage.ResourceHeader{Name: m.Questions[0].Name, Class: dnsmessage.ClassINET}
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: head, Body: r})
		}
		answer, err := m.Pack()
		if err != nil {
			t.Error(err)
		}
		late := m
		late.ID++ // an answer to a question of before comes first
		forged, _ := late.Pack()
		return [][]byte{forged, query, answer}
	})
}

func TestDNS(t *testing.T) {
	name := dnsmessage.MustNewName
	a := &dnsmessage.AResource{A: [4]byte{192, 0, 2, 1}}
	b := &dnsmessage.AResource{A: [4]byte{192, 0, 2, 2}}
	six := &dnsmessage.AAAAResource{AAAA: netip.MustParseAddr("2001:db8::1").As16()}
	mx := &dnsmessage.MXResource{Pref: 10, MX: name("mail.example.com.")}
	txt := &dnsmessage.TXTResource{TXT: []string{"v=", "spf1"}}
	srv := &dnsmessage.SRVResource{Priority: 1, Weight: 2, Port: 80, Target: name("web.example.com.")}
	ns := &dnsmessage.NSResource{NS: name("ns.example.com.")}
	cname := &dnsmessage.CNAMEResource{CNAME: name("other.example.com.")}
	tests := map[string]struct {
		code    dnsmessage.RCode
		records []dnsmessage.ResourceBody
		check   Config
		want    string
	}{
		"answers":            {0, []dnsmessage.ResourceBody{a, b}, Config{}, "up: answered 192.0.2.1, 192.0.2.2"},
		"one of them":        {0, []dnsmessage.ResourceBody{cname, a, b}, Config{Expect: "192.0.2.2"}, "up: answered 192.0.2.1, 192.0.2.2"},
		"another":            {0, []dnsmessage.ResourceBody{a}, Config{Expect: "192.0.2.2"}, "down: answered 192.0.2.1, want 192.0.2.2"},
		"IPv6":               {0, []dnsmessage.ResourceBody{six}, Config{QueryType: "AAAA", Expect: "2001:0db8::0:1"}, "up: answered 2001:db8::1"},
		"MX":                 {0, []dnsmessage.ResourceBody{mx}, Config{QueryType: "MX", Expect: "10 MAIL.example.com."}, "up: answered 10 mail.example.com"},
		"TXT":                {0, []dnsmessage.ResourceBody{txt}, Config{QueryType: "TXT", Expect: "v=spf1"}, "up: answered v=spf1"},
		"SRV":                {0, []dnsmessage.ResourceBody{srv}, Config{QueryType: "SRV"}, "up: answered 1 2 80 web.example.com"},
		"NS":                 {0, []dnsmessage.ResourceBody{ns}, Config{QueryType: "NS"}, "up: answered ns.example.com"},
		"nothing":            {0, nil, Config{}, "up: answered NOERROR"},
		"nothing, but asked": {0, nil, Config{Expect: "192.0.2.1"}, "down: answered NOERROR without a record, want 192.0.2.1"},
		"no such name":       {3, nil, Config{}, "down: answered NXDOMAIN, want NOERROR"},
		"no such name, fine": {3, nil, Config{Rcode: "NXDOMAIN"}, "up: answered NXDOMAIN"},
		"refused":            {5, nil, Config{}, "down: answered REFUSED, want NOERROR"},
		"odd code":           {11, nil, Config{}, "down: answered RCODE11, want NOERROR"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			check := test.check
			check.Type, check.Query, check.Timeout = DNS, "example.com", ample
			if got := verdictOf(t, resolver(t, test.code, test.records...), check); got != test.want {
				t.Errorf("%s, want %s", got, test.want)
			}
		})
	}
}

func TestDNSServersThatMisbehave(t *testing.T) {
	check := func(timeout bool) Config {
		c := Config{Type: DNS, Query: "example.com", Expect: "192.0.2.1", Timeout: ample}
		if timeout {
			c.Timeout = short
		}
		return c
	}
	tests := map[string]struct {
		answer  func(query []byte) [][]byte
		timeout bool
		want    string
	}{
		"silent":       {func([]byte) [][]byte { return nil }, true, "down: no answer within 150ms"},
		"echoes":       {func(q []byte) [][]byte { return [][]byte{q} }, true, "down: no answer within 150ms"},
		"garbage":      {func([]byte) [][]byte { return [][]byte{[]byte("hello")} }, false, "down: " + errNotDNS.Error()},
		"cut":          {func(q []byte) [][]byte { q[2] |= 0x80; q[7] = 1; return [][]byte{q} }, false, "down: " + errNotDNS.Error()},
		"truncated":    {func(q []byte) [][]byte { q[2] |= 0x82; q[7] = 1; return [][]byte{q} }, false, "down: the answer is cut short, and 192.0.2.1 is not in it"},
		"no question":  {func(q []byte) [][]byte { q[2] |= 0x80; q[3] = 1; q[5] = 0; return [][]byte{q[:12]} }, false, "down: answered FORMERR, want NOERROR"},
		"another name": {func(q []byte) [][]byte { q[2] |= 0x80; q[13] = 'X'; q[14] = 'Y'; return [][]byte{q} }, true, "down: no answer within 150ms"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got := verdictOf(t, serveUDP(t, test.answer), check(test.timeout)); got != test.want {
				t.Errorf("%s, want %s", got, test.want)
			}
		})
	}
	t.Run("refuses", func(t *testing.T) {
		if got := verdictOf(t, closedUDP(t), check(false)); got != "down: connection refused" {
			t.Error(got)
		}
	})
}

func FuzzDNSAnswer(f *testing.F) {
	question, err := newQuestion(Config{Query: "example.com"})
	if err != nil {
		f.Fatal(err)
	}
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: 1, Response: true},
		Questions: []dnsmessage.Question{question},
		Answers: []dnsmessage.Resource{{
			Header: dnsmessage.ResourceHeader{Name: question.Name, Class: dnsmessage.ClassINET},
			Body:   &dnsmessage.AResource{A: [4]byte{192, 0, 2, 1}},
		}},
	}
	packed, err := m.Pack()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(packed)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, packet []byte) {
		answer, mine, err := readDNSAnswer(packet, 1, question)
		if err != nil || !mine {
			return
		}
		words, err := answer.judge(Config{})
		if err == nil && strings.ContainsAny(words, "\n\x1b") {
			t.Errorf("unprintable words %q", words)
		}
	})
}
