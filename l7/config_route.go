package l7

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"appliance/l7/accesslog"
	"appliance/l7/http1"
)

// validate reports the mistakes in a route, whose table is at that key.
func (r Route) validate(at string, problem func(key, message string)) {
	targets := 0
	for _, has := range []bool{r.Pool != "" && r.Files == nil, r.Redirect != nil, r.Respond != nil, r.Files != nil} {
		if has {
			targets++
		}
	}
	switch {
	case targets == 0:
		problem(at+".pool", "a route needs one of pool, redirect, respond and files")
	case targets > 1:
		problem(at+".pool", "a route has one of pool, redirect, respond and files, not several")
	}
	if r.Redirect != nil {
		r.Redirect.validate(at+".redirect", problem)
	}
	if r.Respond != nil {
		r.Respond.validate(at+".respond", problem)
	}
	if r.Files != nil {
		r.Files.validate(at+".files", problem)
	}
	for j, h := range r.Hosts {
		if !validHost(h) {
			problem(fmt.Sprintf("%s.hosts[%d]", at, j), fmt.Sprintf("%q is no host name such as blog.example.com or *.example.com", h))
		}
	}
	for j, p := range r.Paths {
		if _, err := newRule(p); err != nil {
			problem(fmt.Sprintf("%s.paths[%d]", at, j), err.Error())
		}
	}
	for j, m := range r.Methods {
		if strings.ToUpper(m) != m || !http1.IsToken(m) {
			problem(fmt.Sprintf("%s.methods[%d]", at, j), fmt.Sprintf("%q is no method such as GET", m))
		}
	}
	validateWanted(at+".headers", r.Headers, problem)
	for name := range r.Headers {
		if strings.EqualFold(name, "Host") {
			problem(at+".headers."+quoteKey(name), "a route is for a host by hosts")
		}
	}
	validateWanted(at+".query", r.Query, problem)
	validateStripPrefix(at+".strip_prefix", r.StripPrefix, problem)
	r.Rewrite.validate(at+".rewrite", problem)
	if r.Pool == "" && targets == 1 {
		for key, has := range map[string]bool{
			"request_headers": r.RequestHeaders != nil, "intercept_errors": r.InterceptErrors, "maintenance": r.Maintenance != nil,
			"sticky": r.Sticky != nil, "hash_by": r.HashBy != nil, "retry": r.Retry != nil,
		} {
			if has {
				problem(at+"."+key, "only a route with a pool has use for this")
			}
		}
	}
	if r.Pool == "" && r.Files == nil && targets == 1 {
		for key, has := range map[string]bool{"strip_prefix": r.StripPrefix != "", "rewrite": r.Rewrite != nil} {
			if has {
				problem(at+"."+key, "only what goes on to a pool or to files has its path changed")
			}
		}
	}
}

func validateWanted(at string, values map[string]string, problem func(key, message string)) {
	for name, value := range values {
		if _, err := newWanted(map[string]string{name: value}); err != nil {
			problem(at+"."+quoteKey(name), err.Error())
		}
	}
}

// validLocation reports a redirect that could be turned to anywhere by whoever
// writes the request.
func validLocation(to string) error {
	if err := validText(to); err != nil {
		return err
	}
	if _, err := newTemplate(to); err != nil {
		return err
	}
	scheme, rest, absolute := strings.Cut(to, "://")
	switch {
	case absolute && (scheme == "https" || scheme == "http"):
		if rest == "" || rest[0] == '/' || rest[0] == '{' && !strings.HasPrefix(rest, "{host}") {
			return fmt.Errorf("%q names no host", to)
		}
		return nil
	case strings.HasPrefix(to, "/") && !strings.HasPrefix(to, "//") && !strings.HasPrefix(to, "/{"):
		return nil
	}
	return fmt.Errorf("%q is neither a URL such as \"https://www.example.com{path}{query}\" nor a path", to)
}

// validateRules reports the mistakes in the rules of the service and its routes.
func (c Config) validateRules(problem func(key, message string)) {
	const noPages = "there are no error_pages to show instead"
	c.Rules.validate("", problem)
	pages := len(c.ErrorPages)
	for i, r := range c.Routes {
		at := fmt.Sprintf("route[%d].", i)
		r.Rules.validate(at, problem)
		if pages += len(r.ErrorPages); r.InterceptErrors && len(r.ErrorPages)+len(c.ErrorPages) == 0 {
			problem(at+"intercept_errors", noPages)
		}
	}
	if c.InterceptErrors && pages == 0 {
		problem("intercept_errors", noPages)
	}
}

// EachRules calls visit for the rules of the service and of its routes, with the
// path of their table below the service's, which ends at a dot unless it is empty.
func (c *Config) EachRules(visit func(at string, r *Rules)) {
	visit("", &c.Rules)
	for i := range c.Routes {
		visit(fmt.Sprintf("route[%d].", i), &c.Routes[i].Rules)
	}
}

// EachFile calls visit for every file and folder that the service names, but its
// certificates, with the key that names it. visit may change the path.
func (c *Config) EachFile(visit func(key string, path *string)) {
	if c.AccessLog != nil && c.AccessLog.Path != accesslog.Stdout {
		visit("access_log.path", &c.AccessLog.Path)
	}
	if c.TLS != nil {
		visit("tls.client_ca", &c.TLS.ClientCA)
		visit("tls.client_crl", &c.TLS.ClientCRL)
	}
	c.Rules.eachFile("", visit)
	for i := range c.Routes {
		at := fmt.Sprintf("route[%d].", i)
		if f := c.Routes[i].Files; f != nil {
			visit(at+"files.root", &f.Root)
		}
		c.Routes[i].Rules.eachFile(at, visit)
	}
}

// CheckFiles calls problem for every file that EachFile visits and that is of no
// use.
func (c *Config) CheckFiles(problem func(key, message string)) {
	if c.TLS != nil {
		c.TLS.checkClientFiles(problem)
	}
	c.EachFile(func(key string, path *string) {
		if *path == "" {
			return // said already
		}
		if strings.HasPrefix(key, "tls.") {
			return // they are judged together
		}
		check := checkFile
		switch {
		case key == "access_log.path":
			check = checkLogFile
		case strings.HasSuffix(key, ".files.root"):
			check = checkFolder
		case strings.HasSuffix(key, ".users_file"):
			check = func(path string) error { _, err := loadUsers(path); return err }
		case strings.HasSuffix(key, ".key_file"):
			check = func(path string) error { _, err := loadKey(path); return err }
		}
		if err := check(*path); err != nil {
			problem(key, err.Error())
		}
	})
}

func checkFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New(path + " is no file")
	}
	return err
}
