package l7

import (
	"strconv"
	"strings"
)

// acceptsCoding returns the weight that the client gives a content coding, 0 if
// it does not take it (RFC 9110, section 12.5.3). A client that says nothing is
// taken to want none.
func acceptsCoding(request fields, coding string) float64 {
	weight, any := -1.0, 0.0
	for i := range request {
		if !strings.EqualFold(request[i].Name, "Accept-Encoding") {
			continue
		}
		for rest, more := request[i].Value, true; more; {
			var item string
			item, rest, more = strings.Cut(rest, ",")
			name, parameters, _ := strings.Cut(item, ";")
			switch name = strings.TrimSpace(name); {
			case strings.EqualFold(name, coding), coding == "gzip" && strings.EqualFold(name, "x-gzip"):
				weight = quality(parameters)
			case name == "*":
				any = quality(parameters)
			}
		}
	}
	if weight < 0 {
		return any
	}
	return weight
}

// quality returns the weight among parameters, 1 without one.
func quality(parameters string) float64 {
	for p := range strings.SplitSeq(parameters, ";") {
		name, value, _ := strings.Cut(p, "=")
		if strings.EqualFold(strings.TrimSpace(name), "q") {
			q, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err != nil || !(q >= 0 && q <= 1) {
				return 0
			}
			return q
		}
	}
	return 1
}

// compressible reports whether content of that type becomes smaller by packing
// it, which that of most others has had already.
func compressible(contentType string) bool {
	kind, _, _ := strings.Cut(contentType, ";")
	kind = strings.ToLower(strings.TrimSpace(kind))
	switch kind {
	case "application/json", "application/javascript", "application/xml", "application/wasm", "application/rtf",
		"application/x-javascript", "application/vnd.ms-fontobject", "application/x-ndjson",
		"image/svg+xml", "image/bmp", "image/x-icon", "font/ttf", "font/otf":
		return true
	case "text/event-stream":
		return false // each event has to get through at once
	}
	return strings.HasPrefix(kind, "text/") || strings.HasSuffix(kind, "+json") || strings.HasSuffix(kind, "+xml")
}
