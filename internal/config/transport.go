package config

import (
	"cmp"
	"net/netip"

	"appliance/health"
	"appliance/internal/endpoint"
	"appliance/l7"
)

// CheckFor returns what checks a server of the pool, nil without a check: its
// address is that of the server, host the name or IP address of its host, serverName
// the name that it alone is asked for by TLS, and sendProxy the version of the PROXY
// header that it is sent, as pool.Server has them.
func (p Pool) CheckFor(address endpoint.Endpoint, host, serverName, sendProxy string) *health.Target {
	if p.Check == nil {
		return nil
	}
	check := *p.Check
	if _, notName := netip.ParseAddr(host); notName == nil {
		host = ""
	}
	if p.sharesTLS() && check.ServerName == "" {
		check.ServerName = cmp.Or(serverName, p.TLS.ServerName, host)
	}
	if check.SendProxy == "" && p.checksSamePort() && check.Type.Connects() {
		check.SendProxy = sendProxy
	}
	t := check.For(address)
	return &t
}

// sharesTLS reports whether the pool's check makes its handshakes as the services
// do that use the pool: it asks the same port by TLS, and the file says nothing
// else about it.
func (p Pool) sharesTLS() bool {
	c := p.Check
	return p.TLS != nil && p.checksSamePort() && (c.Type == health.HTTPS || c.Type == health.TLS || c.Type == health.GRPC)
}

// grpcByTLS reports whether the pool's check is one by grpc that is encrypted because
// the pool's servers are spoken to by TLS.
func (p Pool) grpcByTLS() bool { return p.sharesTLS() && p.Check.Type == health.GRPC }

// checksSamePort reports whether the pool's check asks where its services do.
func (p Pool) checksSamePort() bool {
	return p.Check != nil && p.Check.Port == 0 && !p.Check.Address.IsValid()
}

// inherit gives the check what the pool says about its servers and the check itself
// does not: the version of HTTP, and tls.
func (p *Pool) inherit() {
	if !p.checksSamePort() {
		return
	}
	c := *p.Check
	p.Check = &c
	if p.HTTP == l7.HTTP2 && c.HTTP == "" && (c.Type == health.HTTP || c.Type == health.HTTPS) {
		c.HTTP = string(l7.HTTP2)
	}
	if !p.sharesTLS() {
		return
	}
	c.TLS = c.TLS || p.grpcByTLS()
	if p.TLS.EffectiveVerify() && !c.Verify {
		c.Verify, c.CAFile = true, p.TLS.CAFile
	}
	if c.Cert == "" {
		c.Cert, c.Key = p.TLS.Cert, p.TLS.Key
	}
}

// validateTransport reports servers that cannot be spoken to as their pool says.
func (f *File) validateTransport(r *report, path string, p Pool) {
	p.Transport.Validate(r.under(path))
	if p.TLS != nil && p.TLS.EffectiveVerify() && p.TLS.ServerName == "" {
		for i, s := range p.Servers {
			if e, err := endpoint.Parse(s.Address); err == nil && e.Path() != "" && s.ServerName == "" {
				r.invalid(index(path+".servers", i)+".address",
					"the certificate of a server on a unix socket is for no name that is known; give it a server_name, or the pool tls.server_name or verify = false")
			}
		}
	}
	for i, s := range p.Servers {
		at := index(path+".servers", i) + ".server_name"
		switch {
		case s.ServerName != "" && p.TLS == nil:
			r.invalid(at, "a name is asked for by TLS; give the pool tls")
		case s.ServerName != "" && !l7.ValidServerName(s.ServerName):
			r.invalid(at, "%q is no host name", s.ServerName)
		}
	}
	if c := p.Check; p.TLS != nil && c != nil && c.Type == health.HTTP && p.checksSamePort() {
		r.invalid(path+".check.type", "the pool's servers speak TLS; choose \"https\", or give the port that speaks plain HTTP")
	}
}

// validatePlainServers reports pools whose servers are to be spoken to by TLS or
// HTTP/2, or judged by their answers, and that are used by a service which passes on
// what clients send.
func (f *File) validatePlainServers(r *report) {
	said := make(map[string]bool)
	for _, s := range f.services() {
		if !s.passes {
			continue
		}
		for _, name := range s.pools {
			p, path := f.poolOf(s, name)
			if p.Outlier != nil && p.Outlier.Count5xx && !said[path+".outlier"] {
				said[path+".outlier"] = true
				r.invalid(path+".outlier.count_5xx", "service %s uses this pool, and services of [[l4]] see no answers of HTTP", s.name)
			}
			if p.Plain() || said[path] {
				continue
			}
			said[path] = true
			key := ".http"
			if p.TLS != nil {
				key = ".tls"
			}
			r.invalid(path+key, "service %s uses this pool, and services of [[l4]] pass on what clients send as it is; only [[l7]] speaks to servers itself; give it a pool without this", s.name)
		}
	}
}
