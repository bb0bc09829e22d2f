package l7

import (
	"net/netip"
	"sync/atomic"
	"time"

	"appliance/l7/accesslog"
)

// ServiceStats describes a service at one moment. Counters begin at zero when
// the service is first committed and survive reloads.
type ServiceStats struct {
	Name   string
	Listen []netip.AddrPort
	Pools  []string
	TLS    bool
	// Certificates are those that are shown to clients, in the order of the file.
	Certificates []CertificateStats
	// Current is the number of requests and upgraded connections under way,
	// Requests of all there ever were. Requests that never became one, because
	// their head was too large, too slow or no HTTP, are not among them.
	Current  int64
	Requests int64
	// Responses are the answers by the class of their status: [0] 1xx, of
	// which only upgrades are counted, to [4] 5xx.
	Responses [5]int64
	// Connections is the number of connections of clients, Refused of those that
	// were one too many.
	Connections int64
	Refused     int64
	// NoRequests are what came and has not become a request, TLSFailures the
	// handshakes that failed; neither is among Requests.
	NoRequests  int64
	TLSFailures int64
	// NoServer is the number of requests for which no server was usable.
	NoServer int64
	// Troubles counts the requests that were refused or not answered whole, by the
	// reasons that the access log has for it.
	Troubles map[string]int64
	// BytesIn and BytesOut are the bodies' bytes from and to clients, and what
	// upgraded connections carried.
	BytesIn  int64
	BytesOut int64
}

// CertificateStats is a certificate that a service shows to clients.
type CertificateStats struct {
	Path     string   // of its file
	Names    []string // of the hosts that it is for
	NotAfter time.Time
}

// counters are the numbers of one service.
type counters struct {
	current, requests, noServer atomic.Int64
	noRequests, tlsFailures     atomic.Int64
	responses                   [5]atomic.Int64
	bytesIn, bytesOut           atomic.Int64
	troubles                    [len(accesslog.Troubles)]atomic.Int64
}

// answered counts the final status of an answer.
func (c *counters) answered(status int) {
	if class := status/100 - 1; class >= 0 && class < len(c.responses) {
		c.responses[class].Add(1)
	}
}

// ended counts why a request ended, if it did not end well.
func (c *counters) ended(end accesslog.End) {
	if end == accesslog.Done {
		return
	}
	for i, e := range accesslog.Troubles {
		if e == end {
			c.troubles[i].Add(1)
		}
	}
}

func (s *service) stats() ServiceStats {
	st, c := s.state.Load(), &s.pipeline.count
	out := ServiceStats{
		Name:     s.name,
		Listen:   append([]netip.AddrPort(nil), st.cfg.Listen...),
		Pools:    st.cfg.PoolNames(),
		TLS:      st.certs != nil,
		Current:  c.current.Load(),
		Requests: c.requests.Load(),
		NoServer: c.noServer.Load(),

		Connections: s.conns.all.Load(),
		Refused:     s.conns.refused.Load(),
		NoRequests:  c.noRequests.Load(),
		TLSFailures: c.tlsFailures.Load(),

		BytesIn:  c.bytesIn.Load(),
		BytesOut: c.bytesOut.Load(),
	}
	if st.certs != nil {
		out.Certificates = st.certs.list
	}
	out.Troubles = make(map[string]int64, len(c.troubles))
	for i, e := range accesslog.Troubles {
		out.Troubles[string(e)] = c.troubles[i].Load()
	}
	for i := range c.responses {
		out.Responses[i] = c.responses[i].Load()
	}
	return out
}
