package health

import (
	"net/netip"
	"slices"
	"testing"
	"time"
)

func TestValidate(t *testing.T) {
	tests := map[string]struct {
		check Config
		want  []string // the keys that are wrong
	}{
		"tcp":                     {Config{Type: TCP}, nil},
		"http":                    {Config{Type: HTTP, Method: "HEAD", Path: "/up?deep=1", Host: "a.example:80", Status: "200-299, 304"}, nil},
		"mysql":                   {Config{Type: MySQL}, nil},
		"mysql with everything":   {Config{Type: MySQL, User: "lb", PasswordFile: "/pw", Query: "SELECT 1", Expect: "1"}, nil},
		"short interval":          {Config{Type: TCP, Interval: 100 * time.Millisecond}, nil},
		"other intervals":         {Config{Type: TCP, FastInterval: time.Second, DownInterval: time.Minute, Initial: InitialDown}, nil},
		"fast interval is slow":   {Config{Type: TCP, FastInterval: 3 * time.Second}, []string{"fast_interval"}},
		"down interval too short": {Config{Type: TCP, DownInterval: time.Millisecond}, []string{"down_interval"}},
		"unknown initial state":   {Config{Type: TCP, Initial: "fine"}, []string{"initial"}},
		"address of nobody":       {Config{Type: TCP, Address: netip.IPv4Unspecified()}, []string{"address"}},
		"port out of range":       {Config{Type: TCP, Port: 65536}, []string{"port"}},
		"tcp that asks":           {Config{Type: TCP, Send: `\x00`, Expect: "a", ExpectRegexp: "b"}, nil},
		"tcp that listens":        {Config{Type: TCP, Expect: "220"}, nil},
		"tcp that only talks":     {Config{Type: TCP, Send: "hello"}, []string{"send"}},
		"no such byte":            {Config{Type: TCP, Send: `\xg0`, Expect: `\x0`}, []string{"send", "expect"}},
		"no regular expression":   {Config{Type: TCP, ExpectRegexp: "("}, []string{"expect_regexp"}},
		"udp":                     {Config{Type: UDP, Send: "ping"}, nil},
		"a PROXY header":          {Config{Type: SMTP, SendProxy: "v2"}, nil},
		"an odd PROXY header":     {Config{Type: SMTP, SendProxy: "v3"}, []string{"send_proxy"}},
		"a PROXY header by UDP":   {Config{Type: UDP, Send: "ping", SendProxy: "v1"}, []string{"send_proxy"}},
		"udp that says nothing":   {Config{Type: UDP}, []string{"send"}},
		"https with everything": {Config{
			Type: HTTPS, Method: "POST", Path: "/up", Host: "a.example", Headers: "X-A: b", Status: "200", Expect: "ok",
			ExpectRegexp: "ok", ServerName: "b.example", Verify: true, CAFile: "ca.pem", ExpiryWarningDays: 30,
		}, nil},
		"tls":                      {Config{Type: TLS, ServerName: "a.example", ExpiryWarningDays: 1}, nil},
		"odd server name":          {Config{Type: TLS, ServerName: "a.example:443"}, []string{"server_name"}},
		"authorities for nothing":  {Config{Type: TLS, CAFile: "ca.pem"}, []string{"ca_file"}},
		"too many days":            {Config{Type: TLS, ExpiryWarningDays: 4000}, []string{"expiry_warning_days"}},
		"a body for HEAD":          {Config{Type: HTTP, Method: "HEAD", Expect: "ok"}, []string{"method"}},
		"postgres":                 {Config{Type: Postgres, User: "lb", PasswordFile: "/pw", Database: "b", Query: "SELECT 1", Expect: "1"}, nil},
		"database without user":    {Config{Type: Postgres, Database: "b"}, []string{"database"}},
		"database of mysql":        {Config{Type: MySQL, User: "lb", Database: "b"}, []string{"database"}},
		"redis":                    {Config{Type: Redis, User: "lb", PasswordFile: "/pw", Role: "master"}, nil},
		"redis without user":       {Config{Type: Redis, PasswordFile: "/pw"}, nil},
		"redis without password":   {Config{Type: Redis, User: "lb"}, []string{"user"}},
		"unknown role":             {Config{Type: Redis, Role: "king"}, []string{"role"}},
		"smtp":                     {Config{Type: SMTP}, nil},
		"smtp that expects":        {Config{Type: SMTP, Expect: "x"}, []string{"expect"}},
		"ssh":                      {Config{Type: SSH, Expect: "OpenSSH"}, nil},
		"dns":                      {Config{Type: DNS, Query: "a.example", QueryType: "MX", Rcode: "NXDOMAIN", Expect: "x"}, nil},
		"dns without a name":       {Config{Type: DNS}, []string{"query"}},
		"dns of an odd name":       {Config{Type: DNS, Query: "a..example"}, []string{"query"}},
		"dns of an odd type":       {Config{Type: DNS, Query: "a.example", QueryType: "B"}, []string{"query_type"}},
		"dns of an odd code":       {Config{Type: DNS, Query: "a.example", Rcode: "FINE"}, []string{"rcode"}},
		"icmp":                     {Config{Type: ICMP}, nil},
		"port of icmp":             {Config{Type: ICMP, Port: 1}, []string{"port"}},
		"redis with TLS":           {Config{Type: Redis, TLS: true, Verify: true, CAFile: "ca.pem", ServerName: "cache.example"}, nil},
		"verify without TLS":       {Config{Type: Postgres, Verify: true}, []string{"verify"}},
		"mysql with TLS":           {Config{Type: MySQL, TLS: true, Verify: true, CAFile: "ca.pem", ServerName: "db.example"}, nil},
		"TLS of ssh":               {Config{Type: SSH, TLS: true}, []string{"tls"}},
		"no type":                  {Config{}, []string{"type"}},
		"unknown type":             {Config{Type: "ping"}, []string{"type"}},
		"interval too short":       {Config{Type: TCP, Interval: time.Millisecond}, []string{"interval"}},
		"timeout beyond interval":  {Config{Type: TCP, Timeout: 3 * time.Second}, []string{"timeout"}},
		"timeout negative":         {Config{Type: TCP, Timeout: -1}, []string{"timeout"}},
		"jitter beyond interval":   {Config{Type: TCP, Jitter: 3 * time.Second}, []string{"jitter"}},
		"rise and fall negative":   {Config{Type: TCP, Rise: -1, Fall: -1}, []string{"rise", "fall"}},
		"status out of range":      {Config{Type: HTTP, Status: "200-600"}, []string{"status"}},
		"status upside down":       {Config{Type: HTTP, Status: "299-200"}, []string{"status"}},
		"status in words":          {Config{Type: HTTP, Status: "ok"}, []string{"status"}},
		"path without slash":       {Config{Type: HTTP, Path: "up"}, []string{"path"}},
		"path with a wrong escape": {Config{Type: HTTP, Path: "/%zz"}, []string{"path"}},
		"method of two words":      {Config{Type: HTTP, Method: "GET /"}, []string{"method"}},
		"host with a path":         {Config{Type: HTTP, Host: "a.example/up"}, []string{"host"}},
		"path of a tcp check":      {Config{Type: TCP, Path: "/"}, []string{"path"}},
		"user of an http check":    {Config{Type: HTTP, User: "lb"}, []string{"user"}},
		"query without user":       {Config{Type: MySQL, Query: "SELECT 1"}, []string{"query"}},
		"password without user":    {Config{Type: MySQL, PasswordFile: "/pw"}, []string{"password_file"}},
		"expect without query":     {Config{Type: MySQL, User: "lb", Expect: "1"}, []string{"expect"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var got []string
			test.check.Validate(func(key, message string) {
				got = append(got, key)
				if message == "" {
					t.Errorf("%s is wrong without a word", key)
				}
			})
			if !slices.Equal(got, test.want) {
				t.Errorf("wrong keys %v, want %v", got, test.want)
			}
		})
	}
}

func TestDefaults(t *testing.T) {
	tests := []struct {
		check                            Config
		interval, timeout, jitter, learn time.Duration
	}{
		{Config{}, 2 * time.Second, time.Second, 200 * time.Millisecond, 4100 * time.Millisecond},
		{Config{Interval: 100 * time.Millisecond}, 100 * time.Millisecond, 100 * time.Millisecond, 10 * time.Millisecond, 260 * time.Millisecond},
		{Config{Interval: 4, Timeout: 3, Jitter: 2}, 4, 3, 2, 17},
		{Config{Interval: 4, Timeout: 3, Jitter: 2, Rise: 4, Fall: 1}, 4, 3, 2, 21},
		{Config{Interval: 4, Timeout: 3, Jitter: 2, Rise: 1, Fall: 1}, 4, 3, 2, 9},
		{Config{Interval: 4, Timeout: 3, Jitter: 2, Rise: 1, Fall: 1, DownInterval: 8, FastInterval: 1}, 4, 3, 2, 15},
	}
	for _, test := range tests {
		c := test.check
		if c.EffectiveInterval() != test.interval || c.EffectiveTimeout() != test.timeout ||
			c.EffectiveJitter() != test.jitter || c.Skew() != test.learn {
			t.Errorf("%+v: interval %s, timeout %s, jitter %s, skew %s", c,
				c.EffectiveInterval(), c.EffectiveTimeout(), c.EffectiveJitter(), c.Skew())
		}
	}
}
