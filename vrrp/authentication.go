package vrrp

import (
	"bytes"
	"fmt"
	"io"
)

// Authentication is how the adverts of version 2 show that their sender belongs
// to the virtual router. The password crosses the LAN as it is: it keeps two
// pairs apart that were given one identifier by mistake, and no attacker out
// (RFC 3768 section 10). The zero value is no authentication.
type Authentication struct {
	Type AuthenticationType `toml:"type"`
	// Password is 1 to 8 bytes for AuthenticatePass, else empty.
	Password Password `toml:"password"`
}

// AuthenticationType is an Authentication Type of RFC 2338 section 5.3.6; its
// value is the one in the message.
type AuthenticationType uint8

const (
	// AuthenticateNone is no authentication.
	AuthenticateNone AuthenticationType = 0
	// AuthenticatePass is a simple text password.
	AuthenticatePass AuthenticationType = 1
)

// String returns the type as the file spells it.
func (t AuthenticationType) String() string {
	if t == AuthenticatePass {
		return "pass"
	}
	return "none"
}

// UnmarshalText reads the type as the file spells it.
func (t *AuthenticationType) UnmarshalText(text []byte) error {
	switch string(text) {
	case "none":
		*t = AuthenticateNone
	case "pass":
		*t = AuthenticatePass
	default:
		return fmt.Errorf(`%q is not a type of authentication; "none" and "pass" are`, text)
	}
	return nil
}

// Password is a password that neither fmt nor JSON shows.
type Password string

const hidden = "(hidden)"

// Format writes that there is something to hide, whatever the verb.
func (p Password) Format(s fmt.State, _ rune) { io.WriteString(s, hidden) }

// MarshalText returns that there is something to hide.
func (p Password) MarshalText() ([]byte, error) { return []byte(hidden), nil }

// data returns the Authentication Data: the password cut to 8 bytes or filled up
// with zeros (RFC 2338 section 5.3.9), all zeros without one.
func (a Authentication) data() (data [authLength]byte) {
	if a.Type == AuthenticatePass {
		copy(data[:], a.Password)
	}
	return data
}

// readAuthentication reads the fields of a message; ok is false for a type that
// this package does not know.
func readAuthentication(kind uint8, data [authLength]byte) (a Authentication, ok bool) {
	switch a.Type = AuthenticationType(kind); a.Type {
	case AuthenticateNone:
		// RFC 2338 section 5.3.6.1: the data is ignored on reception.
		return a, true
	case AuthenticatePass:
		a.Password = Password(bytes.TrimRight(data[:], "\x00"))
		return a, true
	}
	return Authentication{}, false
}

// validate calls problem for each mistake, as Config.Validate does.
func (a Authentication) validate(version int, problem func(key, message string)) {
	n := len(a.Password)
	switch {
	case version == 3 && a.Type != AuthenticateNone:
		problem("authentication", "version 3 has no authentication; leave it out, or use version = 2")
	case a.Type == AuthenticateNone && n > 0:
		problem("authentication.password", `without authentication there is no password; write type = "pass"`)
	case a.Type == AuthenticatePass && n == 0:
		problem("authentication.password", `type = "pass" needs a password of 1 to 8 bytes`)
	case n > authLength:
		problem("authentication.password", fmt.Sprintf("the password has %d bytes and an advert has room for %d; give its first %d, which is what keepalived sends of a longer one", n, authLength, authLength))
	}
}
