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
		"tcp":                      {Config{Type: TCP}, nil},
		"http":                     {Config{Type: HTTP, Method: "HEAD", Path: "/up?deep=1", Host: "a.example:80", Status: "200-299, 304"}, nil},
		"mysql":                    {Config{Type: MySQL}, nil},
		"mysql with everything":    {Config{Type: MySQL, User: "lb", PasswordFile: "/pw", Query: "SELECT 1", Expect: "1"}, nil},
		"short interval":           {Config{Type: TCP, Interval: 100 * time.Millisecond}, nil},
		"other intervals":          {Config{Type: TCP, FastInterval: time.Second, DownInterval: time.Minute, Initial: InitialDown}, nil},
		"fast interval is slow":    {Config{Type: TCP, FastInterval: 3 * time.Second}, []string{"fast_interval"}},
		"down interval too short":  {Config{Type: TCP, DownInterval: time.Millisecond}, []string{"down_interval"}},
		"unknown initial state":    {Config{Type: TCP, Initial: "fine"}, []string{"initial"}},
		"address of nobody":        {Config{Type: TCP, Address: netip.IPv4Unspecified()}, []string{"address"}},
		"port out of range":        {Config{Type: TCP, Port: 65536}, []string{"port"}},
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
		{Config{}, 2 * time.Second, time.Second, 200 * time.Millisecond, 4 * time.Second},
		{Config{Interval: 100 * time.Millisecond}, 100 * time.Millisecond, 100 * time.Millisecond, 10 * time.Millisecond, 250 * time.Millisecond},
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
