package l7

import (
	"net/http"
	"net/netip"
	"net/url"
	"path"
	"strconv"
	"strings"

	"appliance/l7/http1"
)

// normalHost returns the host of a Host field for comparing: without its port,
// in lower case, without a dot at the end; an IPv6 address in brackets and its
// canonical form. ok is false for what is no host, "" included.
func normalHost(hostport string) (host string, ok bool) {
	if strings.HasPrefix(hostport, "[") {
		end := strings.IndexByte(hostport, ']')
		if end < 0 || !validPort(hostport[end+1:]) {
			return "", false
		}
		a, err := netip.ParseAddr(hostport[1:end])
		if err != nil || !a.Is6() || a.Zone() != "" {
			return "", false
		}
		return "[" + a.String() + "]", true
	}
	host = hostport
	if colon := strings.IndexByte(host, ':'); colon >= 0 {
		if !validPort(host[colon:]) {
			return "", false
		}
		host = host[:colon]
	}
	host = strings.TrimSuffix(host, ".")
	if strings.HasPrefix(host, "*") || !validHost(host) {
		return "", false
	}
	return strings.ToLower(host), true // not before: other letters become ASCII by that
}

// validPort reports whether s is nothing or a colon with, possibly, a port
// (RFC 3986, section 3.2.3, allows "host:").
func validPort(s string) bool {
	if s == "" || s == ":" {
		return true
	}
	for _, c := range []byte(s[1:]) {
		if c < '0' || c > '9' {
			return false
		}
	}
	n, err := strconv.Atoi(s[1:])
	return s[0] == ':' && err == nil && n <= 65535
}

// validTarget reports whether a request may have this target: "/path?query", or
// "*" for OPTIONS (RFC 9112, section 3.2). A "#" is in none, and what servers
// take for the path of a target with one differs.
func validTarget(method, target string) bool {
	if target == "*" {
		return method == http.MethodOptions
	}
	return strings.HasPrefix(target, "/") && !strings.Contains(target, "#") && validEscapes(target[:len(target)-lenQuery(target)])
}

// validEscapes reports whether each "%" of a path begins the code of a byte (RFC
// 3986, section 2.1), and none that of NUL. What servers make of others differs, so
// that a request could get past the route that is for its path.
func validEscapes(path string) bool {
	for {
		i := strings.IndexByte(path, '%')
		if i < 0 {
			return true
		}
		if path = path[i+1:]; len(path) < 2 || !http1.IsHex(path[0]) || !http1.IsHex(path[1]) || path[:2] == "00" {
			return false
		}
	}
}

// plainTarget returns a target, which is valid, without dot segments: a server that
// does not remove them would find something else than the route is for
// ("/admin/x/../../public"). Those who write URLs have removed them before they
// ask. ok is false if only some servers see such a segment ("..;", "..\").
func plainTarget(target string) (plain string, ok bool) {
	raw := target[:len(target)-lenQuery(target)]
	if strings.IndexByte(raw, '%') < 0 && !strings.Contains(raw, "/.") && !strings.Contains(raw, "..") {
		return target, true
	}
	decoded, err := url.PathUnescape(raw)
	if err != nil {
		return "", false
	}
	dots, last := false, ""
	for last = range strings.SplitSeq(decoded, "/") {
		if last == "." || last == ".." {
			dots = true
			continue
		}
		for part := range strings.SplitSeq(last, `\`) {
			if name, _, _ := strings.Cut(part, ";"); name == ".." {
				return "", false
			}
		}
	}
	if !dots {
		return target, true
	}
	clean := path.Clean(decoded)
	if clean != "/" && (last == "" || last == "." || last == "..") {
		clean += "/"
	}
	return (&url.URL{Path: clean}).EscapedPath() + target[len(raw):], true
}

// normalPath returns the path of a target for comparing: decoded once, without
// dot segments, doubled slashes and slash at the end, as the usual servers
// understand it. A server that takes more for the same path (a backslash for a
// slash, a part behind ";" for nothing, upper for lower case) must itself guard what
// a route keeps apart. The root is "/"; a target that does not begin with a slash
// ("*") yields "".
func normalPath(target string) string {
	if !strings.HasPrefix(target, "/") {
		return ""
	}
	p, _, _ := strings.Cut(target, "?")
	if strings.IndexByte(p, '%') >= 0 {
		if decoded, err := url.PathUnescape(p); err == nil {
			p = decoded
		}
	}
	return path.Clean(p)
}
