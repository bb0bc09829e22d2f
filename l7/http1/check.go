package http1

// What other versions of HTTP check too, because it must not reach a server of
// this one.

// ValidValue reports whether s may be the value of a field: it has no control
// characters, and no white space at its ends (RFC 9110, section 5.5).
func ValidValue(s string) bool {
	for i := range len(s) {
		if kinds[s[i]]&inValue == 0 {
			return false
		}
	}
	return s == "" || !blank(s[0]) && !blank(s[len(s)-1])
}

func blank(c byte) bool { return c == ' ' || c == '\t' }

// ValidTarget reports whether s has nothing but what the target of a request may
// have.
func ValidTarget(s string) bool {
	for i := range len(s) {
		if kinds[s[i]]&inTarget == 0 {
			return false
		}
	}
	return s != ""
}

// Misleading reports whether a field of that name passes for one that says where
// a message ends, with readers that take all marks for the same.
func Misleading(name string) bool {
	switch len(name) {
	case len("content-length"):
		return alike(name, "content-length") && !fold(name, "content-length")
	case len("transfer-encoding"):
		return alike(name, "transfer-encoding")
	}
	return false
}

// ParseLength reads the value of a Content-Length (RFC 9110, section 8.6).
func ParseLength(value string) (n int64, ok bool) {
	if len(value) == 0 || len(value) > 18 {
		return 0, false
	}
	for i := range len(value) {
		c := value[i]
		if c < '0' || c > '9' {
			return 0, false
		}
		n = 10*n + int64(c-'0')
	}
	return n, true
}
