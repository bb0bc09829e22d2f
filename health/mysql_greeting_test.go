package health

import (
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
)

// encode returns the payload that greets with g; the server of the tests uses
// it, and the fuzz target for its round trip.
func (g greeting) encode() []byte {
	p := append([]byte{10}, g.Version...)
	p = append(p, 0)
	p = binary.LittleEndian.AppendUint32(p, 7) // connection id
	p = append(p, "12345678\x00"...)
	p = binary.LittleEndian.AppendUint16(p, uint16(g.Capabilities))
	p = append(p, 33, 2, 0)
	p = binary.LittleEndian.AppendUint16(p, uint16(g.Capabilities>>16))
	p = append(p, 21)
	p = append(p, make([]byte, 10)...)
	p = append(p, "123456789012\x00"...)
	if g.Capabilities&clientPluginAuth != 0 {
		p = append(p, g.Plugin...)
		p = append(p, 0)
	}
	return p
}

// mariadb is how a MariaDB server greets, except that it has not given up the
// EOF packets of the older protocol.
var mariadb = greeting{
	Version:      "5.5.5-10.11.6-MariaDB",
	Capabilities: 0x80bff7fe | clientLongPassword,
	Plugin:       "mysql_native_password",
}

func TestParseGreeting(t *testing.T) {
	old := mariadb
	old.Capabilities, old.Plugin = clientProtocol41, ""
	for name, want := range map[string]greeting{"plugin": mariadb, "no plugin": old} {
		t.Run(name, func(t *testing.T) {
			if got, err := parseGreeting(want.encode()); got != want || err != nil {
				t.Errorf("%+v, %v; want %+v", got, err, want)
			}
		})
	}
	t.Run("no NUL behind the plugin", func(t *testing.T) {
		payload := mariadb.encode()
		if got, err := parseGreeting(payload[:len(payload)-1]); got != mariadb || err != nil {
			t.Errorf("%+v, %v; want %+v", got, err, mariadb)
		}
	})
}

func TestParseGreetingRefuses(t *testing.T) {
	ancient := mariadb
	ancient.Version, ancient.Capabilities = "4.0.30", 0
	longRandom := mariadb.encode()
	longRandom[len(mariadb.Version)+2+20] = 255
	tests := map[string]struct{ payload, want string }{
		"nothing":             {"", errGarbled.Error()},
		"protocol 9":          {"\x09" + string(mariadb.encode()[1:]), errGarbled.Error()},
		"version only":        {"\x0a10.11", errGarbled.Error()},
		"cut":                 {string(mariadb.encode()[:60]), errGarbled.Error()},
		"random data missing": {string(longRandom), errGarbled.Error()},
		"too old":             {string(ancient.encode()), "server version 4.0.30 speaks a protocol older than MySQL 4.1"},
		"too many":            {"\xff\x10\x04Too many connections", "Too many connections (error 1040)"},
		"with a state":        {"\xff\x15\x04#28000Access denied", "Access denied (error 1045)"},
		"short error":         {"\xff\x15\x04", errGarbled.Error()},
		"short state":         {"\xff\x15\x04#280", errGarbled.Error()},
		"control characters":  {"\xff\x15\x04a\nb\x00", "a?b? (error 1045)"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := parseGreeting([]byte(test.payload))
			if err == nil || err.Error() != test.want {
				t.Errorf("%v, want %s", err, test.want)
			}
		})
	}
}

func FuzzParseGreeting(f *testing.F) {
	f.Add(mariadb.encode())
	f.Add([]byte("\xff\x10\x04Too many connections"))
	f.Add([]byte("\xff\x15\x04#28000Access denied"))
	f.Fuzz(func(t *testing.T, payload []byte) {
		g, err := parseGreeting(payload)
		if err != nil {
			var r *refusal
			if !errors.As(err, &r) {
				return
			}
			again := []byte{mysqlError, byte(r.Code), byte(r.Code >> 8)}
			if r.State != "" {
				again = append(append(again, '#'), r.State...)
			}
			if again = append(again, r.Message...); !slices.Equal(again, payload) {
				t.Errorf("refusal %+v does not give back %q", r, payload)
			}
			return
		}
		again, err := parseGreeting(g.encode())
		if err != nil || again != g {
			t.Errorf("%+v does not come back: %+v, %v", g, again, err)
		}
	})
}

func TestReadPacket(t *testing.T) {
	tests := map[string]struct {
		stream string
		want   error
	}{
		"empty":         {"\x00\x00\x00\x00", errGarbled},
		"too long":      {"\xff\xff\xff\x00", errGarbled},
		"no head":       {"\x01\x00", io.ErrUnexpectedEOF},
		"nothing":       {"", io.EOF},
		"cut":           {"\x05\x00\x00\x00abc", io.ErrUnexpectedEOF},
		"speaks SSH":    {"SSH-2.0-OpenSSH_9.2\r\n", errGarbled},
		"speaks a bit":  {"\x01\x00\x00\x02a", nil},
		"and some more": {"\x01\x00\x00\x02abc", nil},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			sequence, payload, err := (&packetReader{r: strings.NewReader(test.stream)}).next()
			if !errors.Is(err, test.want) || (err == nil && (sequence != 2 || string(payload) != "a")) {
				t.Errorf("%d %q %v, want %v", sequence, payload, err, test.want)
			}
		})
	}
}
