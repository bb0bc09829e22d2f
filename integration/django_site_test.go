package integration

import (
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"appliance/internal/lab"
)

// djangoSettings follow what startproject writes, as Django's manual asks for
// behind a proxy. SECURE_SSL_REDIRECT would send a client round in circles if
// Django did not learn that the client came by HTTPS.
const djangoSettings = `
DEBUG = False
ALLOWED_HOSTS = ['blog.example.com']
USE_X_FORWARDED_HOST = True
SECURE_PROXY_SSL_HEADER = ('HTTP_X_FORWARDED_PROTO', 'https')
SECURE_SSL_REDIRECT = True
SECURE_REDIRECT_EXEMPT = ['^health$']
SESSION_COOKIE_SECURE = True
CSRF_COOKIE_SECURE = True
`

// djangoViews tell what an application sees of a request.
const djangoViews = `
import socket
from django.contrib import admin
from django.http import HttpResponse, JsonResponse
from django.urls import path

def seen(request):
    return JsonResponse({
        'server': socket.gethostname(),
        'remote': request.META['REMOTE_ADDR'],
        'forwarded_for': request.META.get('HTTP_X_FORWARDED_FOR'),
        'real_ip': request.META.get('HTTP_X_REAL_IP'),
        'secure': request.is_secure(),
        'url': request.build_absolute_uri(),
        'user': request.user.get_username(),
    })

urlpatterns = [
    path('admin/', admin.site.urls),
    path('seen', seen),
    path('health', lambda request: HttpResponse('ok')),
]
`

// The administrator of the site.
const (
	djangoUser = "admin"
	djangoWord = "correct horse"
)

// djangoSite is a Django project with a database and an administrator.
type djangoSite struct {
	p        *pair
	dir      string
	gunicorn string
}

// djangoMakeSite makes the site as a developer does, with Django's commands. Its
// static files are collected in a folder.
func djangoMakeSite(p *pair, static string) *djangoSite {
	p.t.Helper()
	program := need(p.t, "django-admin", "python3-django")
	s := &djangoSite{p: p, dir: p.t.TempDir(), gunicorn: need(p.t, "gunicorn", "gunicorn")}
	run := func(args ...string) {
		p.t.Helper()
		var out strings.Builder
		cmd := p.Servers[0].Host.Command(program, args...)
		cmd.Dir, cmd.Env = s.dir, append(cmd.Env, s.environment()...)
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := p.Servers[0].Host.Run(p.within(2*time.Minute), cmd); err != nil {
			p.t.Fatalf("django-admin %s: %v\n%s", strings.Join(args, " "), err, out.String())
		}
	}
	run("startproject", "site1", s.dir)
	settings, err := os.OpenFile(filepath.Join(s.dir, "site1/settings.py"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		p.t.Fatal(err)
	}
	defer settings.Close()
	if _, err := settings.WriteString(djangoSettings + "STATIC_ROOT = " + strconv.Quote(static) + "\n"); err != nil {
		p.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.dir, "site1/urls.py"), []byte(djangoViews), 0o600); err != nil {
		p.t.Fatal(err)
	}
	run("migrate")
	run("createsuperuser", "--noinput")
	run("collectstatic", "--noinput")
	return s
}

func (s *djangoSite) environment() []string {
	return []string{
		"PYTHONPATH=" + s.dir,
		"PYTHONDONTWRITEBYTECODE=1",
		"DJANGO_SETTINGS_MODULE=site1.settings",
		"DJANGO_SUPERUSER_USERNAME=" + djangoUser,
		"DJANGO_SUPERUSER_PASSWORD=" + djangoWord,
		"DJANGO_SUPERUSER_EMAIL=admin@example.com",
	}
}

// serve starts gunicorn with the site at port 8000 of a server. All servers
// share the site's folder, and so its database.
func (s *djangoSite) serve(on *lab.Server) *lab.Process {
	s.p.t.Helper()
	address := netip.AddrPortFrom(on.Address, 8000)
	log, err := os.OpenFile(filepath.Join(s.dir, on.Name()+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		s.p.t.Fatal(err)
	}
	defer log.Close()
	cmd := on.Host.Command(s.gunicorn, "--bind", address.String(), "--workers", "2", "site1.wsgi")
	cmd.Dir, cmd.Env = s.dir, append(cmd.Env, s.environment()...)
	cmd.Stdout, cmd.Stderr = log, log
	process, err := on.Host.Start(cmd)
	if err != nil {
		s.p.t.Fatal(err)
	}
	s.p.t.Cleanup(func() {
		killTree(process)
		if s.p.t.Failed() {
			text, _ := os.ReadFile(log.Name())
			s.p.t.Logf("log of gunicorn on %s:\n%s", on.Name(), text)
		}
	})
	waitAccepting(s.p.t, on.Host, address, process)
	return process
}
