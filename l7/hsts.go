package l7

import (
	"fmt"
	"time"
)

// HSTS tells browsers to come by HTTPS alone (RFC 6797). It is sent by HTTPS only.
type HSTS struct {
	// MaxAge is for how long they remember; default one year.
	MaxAge time.Duration `toml:"max_age"`
	// IncludeSubdomains has all hosts below be meant too.
	IncludeSubdomains bool `toml:"include_subdomains"`
	// Preload asks for a place in the lists that browsers are shipped with, which
	// is hard to undo.
	Preload bool `toml:"preload"`
}

const year = 365 * 24 * time.Hour

// EffectiveMaxAge returns MaxAge with its default applied.
func (h HSTS) EffectiveMaxAge() time.Duration {
	if h.MaxAge == 0 {
		return year
	}
	return h.MaxAge
}

func (h *HSTS) validate(at string, problem func(key, message string)) {
	if h == nil {
		return
	}
	if h.MaxAge < 0 || h.MaxAge > 0 && h.MaxAge < time.Second {
		problem(at+".max_age", "browsers remember for a second at least")
	}
	if h.Preload && (!h.IncludeSubdomains || h.EffectiveMaxAge() < year) {
		problem(at+".preload", "the lists of browsers ask for include_subdomains and a max_age of one year, \"8760h\"")
	}
}

// value returns the field's value.
func (h *HSTS) value() string {
	if h == nil {
		return ""
	}
	v := fmt.Sprintf("max-age=%d", int64(h.EffectiveMaxAge().Seconds()))
	if h.IncludeSubdomains {
		v += "; includeSubDomains"
	}
	if h.Preload {
		v += "; preload"
	}
	return v
}
