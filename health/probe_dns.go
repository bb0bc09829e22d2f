package health

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/net/dns/dnsmessage"
)

// maxDNSAnswer is the longest answer by UDP that a query without EDNS allows, in
// bytes, and some room for servers that do not keep to it.
const maxDNSAnswer = 4 << 10

var errNotDNS = errors.New("the answer is not DNS")

// rcodes are the answers that a check may want, by their usual names.
var rcodes = map[string]dnsmessage.RCode{
	"NOERROR":  dnsmessage.RCodeSuccess,
	"FORMERR":  dnsmessage.RCodeFormatError,
	"SERVFAIL": dnsmessage.RCodeServerFailure,
	"NXDOMAIN": dnsmessage.RCodeNameError,
	"NOTIMP":   dnsmessage.RCodeNotImplemented,
	"REFUSED":  dnsmessage.RCodeRefused,
}

// queryTypes are the records that a check may ask for.
var queryTypes = map[string]dnsmessage.Type{
	"A": dnsmessage.TypeA, "AAAA": dnsmessage.TypeAAAA, "CNAME": dnsmessage.TypeCNAME, "MX": dnsmessage.TypeMX,
	"NS": dnsmessage.TypeNS, "PTR": dnsmessage.TypePTR, "SOA": dnsmessage.TypeSOA, "SRV": dnsmessage.TypeSRV,
	"TXT": dnsmessage.TypeTXT,
}

// newQuestion returns what a dns check asks.
func newQuestion(check Config) (dnsmessage.Question, error) {
	name, err := dnsmessage.NewName(strings.TrimSuffix(check.Query, ".") + ".")
	if err != nil {
		return dnsmessage.Question{}, fmt.Errorf("%q is no name of DNS", check.Query)
	}
	q := dnsmessage.Question{Name: name, Type: queryTypes[orDefault(check.QueryType, "A")], Class: dnsmessage.ClassINET}
	if _, err := packQuestion(1, q); err != nil {
		return dnsmessage.Question{}, fmt.Errorf("%q is no name of DNS", check.Query)
	}
	return q, nil
}

func packQuestion(id uint16, q dnsmessage.Question) ([]byte, error) {
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: id, RecursionDesired: true},
		Questions: []dnsmessage.Question{q},
	}
	return m.Pack()
}

// prepareDNS returns a probe that passes when the target answers the check's
// question, by UDP, in the way that it wants.
func prepareDNS(target Target) (probe, error) {
	question, err := newQuestion(target.Check)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) (finding, error) {
		conn, err := dialUDP(ctx, target.Address)
		if err != nil {
			return finding{}, err
		}
		defer func() { _ = conn.Close() }()
		id := uint16(rand.Uint32())
		query, err := packQuestion(id, question)
		if err != nil {
			return finding{}, err
		}
		if _, err := conn.Write(query); err != nil {
			return finding{}, err
		}
		buffer := make([]byte, maxDNSAnswer)
		for {
			n, err := conn.Read(buffer)
			if err != nil {
				return finding{}, err
			}
			answer, mine, err := readDNSAnswer(buffer[:n], id, question)
			if err != nil {
				return finding{}, err
			}
			if mine { // else it is a late or a forged one
				words, err := answer.judge(target.Check)
				return finding{words: words}, err
			}
		}
	}, nil
}

// dnsAnswer is an answer as far as a check looks at it.
type dnsAnswer struct {
	rcode     dnsmessage.RCode
	truncated bool
	values    []string // of the records of the type that was asked for
}

// readDNSAnswer reads an answer; mine tells whether it is the one to the
// question with that number.
func readDNSAnswer(packet []byte, id uint16, question dnsmessage.Question) (answer dnsAnswer, mine bool, err error) {
	var p dnsmessage.Parser
	head, err := p.Start(packet)
	if err != nil {
		return dnsAnswer{}, false, errNotDNS
	}
	if head.ID != id || !head.Response {
		return dnsAnswer{}, false, nil
	}
	asked, err := p.AllQuestions()
	if err != nil {
		return dnsAnswer{}, false, errNotDNS
	}
	// A server that could not even read the question leaves it out.
	if len(asked) > 1 || len(asked) == 1 && !sameQuestion(asked[0], question) {
		return dnsAnswer{}, false, nil
	}
	answer = dnsAnswer{rcode: head.RCode, truncated: head.Truncated}
	for {
		r, err := p.Answer()
		if errors.Is(err, dnsmessage.ErrSectionDone) {
			return answer, true, nil
		}
		if err != nil {
			if answer.truncated {
				return answer, true, nil
			}
			return dnsAnswer{}, false, errNotDNS
		}
		if value, ok := dnsValue(r.Body); ok && r.Header.Type == question.Type {
			answer.values = append(answer.values, value)
		}
	}
}

func sameQuestion(a, b dnsmessage.Question) bool {
	return a.Type == b.Type && a.Class == b.Class && strings.EqualFold(a.Name.String(), b.Name.String())
}

// dnsValue returns the value of a record as zone files have it, without the dot
// at the end of names.
func dnsValue(body dnsmessage.ResourceBody) (string, bool) {
	plain := func(n dnsmessage.Name) string { return strings.TrimSuffix(n.String(), ".") }
	switch r := body.(type) {
	case *dnsmessage.AResource:
		return netip.AddrFrom4(r.A).String(), true
	case *dnsmessage.AAAAResource:
		return netip.AddrFrom16(r.AAAA).String(), true
	case *dnsmessage.CNAMEResource:
		return plain(r.CNAME), true
	case *dnsmessage.NSResource:
		return plain(r.NS), true
	case *dnsmessage.PTRResource:
		return plain(r.PTR), true
	case *dnsmessage.MXResource:
		return fmt.Sprint(r.Pref, " ", plain(r.MX)), true
	case *dnsmessage.SRVResource:
		return fmt.Sprint(r.Priority, " ", r.Weight, " ", r.Port, " ", plain(r.Target)), true
	case *dnsmessage.SOAResource:
		return plain(r.NS) + " " + plain(r.MBox), true
	case *dnsmessage.TXTResource:
		return strings.Join(r.TXT, ""), true
	}
	return "", false
}

// judge says whether the answer is what check wants, and what it is.
func (a dnsAnswer) judge(check Config) (string, error) {
	got := rcodeName(a.rcode)
	if want := orDefault(check.Rcode, "NOERROR"); got != want {
		return "", fmt.Errorf("answered %s, want %s", got, want)
	}
	values := printable(strings.Join(a.values, ", "))
	if check.Expect != "" && !slices.ContainsFunc(a.values, func(v string) bool { return sameDNSValue(v, check.Expect) }) {
		switch {
		case a.truncated:
			return "", fmt.Errorf("the answer is cut short, and %s is not in it", check.Expect)
		case len(a.values) == 0:
			return "", fmt.Errorf("answered %s without a record, want %s", got, check.Expect)
		}
		return "", fmt.Errorf("answered %s, want %s", values, check.Expect)
	}
	if values == "" {
		return "answered " + got, nil
	}
	return "answered " + values, nil
}

// sameDNSValue compares a value with what a check expects; names and addresses
// have more than one spelling.
func sameDNSValue(value, want string) bool {
	if address, err := netip.ParseAddr(want); err == nil {
		want = address.String()
	}
	return strings.EqualFold(value, strings.TrimSuffix(want, "."))
}

// rcodeName returns the usual name of an answer's code.
func rcodeName(code dnsmessage.RCode) string {
	for name, c := range rcodes {
		if c == code {
			return name
		}
	}
	return fmt.Sprint("RCODE", uint16(code))
}
