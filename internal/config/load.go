package config

import (
	"cmp"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"

	"appliance/health"
	"appliance/internal/certs"
	"appliance/l7"
)

// Load reads and judges the file at path, and whether the certificates and
// password files it names can be read. The error is of type Problems when the
// file could be read.
func Load(path string) (*File, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the configuration: %w", readable(err))
	}
	f, r := parse(path, text)
	f.checkFiles(r)
	if err := r.err(); err != nil {
		return nil, err
	}
	return f, nil
}

// Parse judges text as the content of the file called name, whose folder is
// where relative paths begin. It reads nothing else: whether the files exist
// that the text names is not judged. The error is of type Problems.
func Parse(name string, text []byte) (*File, error) {
	f, r := parse(name, text)
	if err := r.err(); err != nil {
		return nil, err
	}
	return f, nil
}

// SocketOf returns the control socket that the file at path names, or
// DefaultSocket if it does not, or cannot be read. Mistakes elsewhere in the file
// do not matter: a running appliance must take orders while its file is broken.
func SocketOf(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return DefaultSocket
	}
	f, _ := parse(path, text)
	return cmp.Or(f.Admin.Socket, DefaultSocket)
}

// parse does the work of Parse. The file it returns is usable for finding
// further problems even when the report has some already.
func parse(name string, text []byte) (*File, *report) {
	sum := sha256.Sum256(text)
	f := &File{}
	tree, r := readTree(name, string(text))
	r.decode("", tree, reflect.ValueOf(f).Elem())
	f.Path, f.Hash = name, hex.EncodeToString(sum[:])
	for name, p := range f.Pools {
		p.Name = name
		f.Pools[name] = p
	}
	f.resolvePaths(filepath.Dir(name))
	f.validate(r)
	return f, r
}

// resolvePaths lets all relative paths begin in dir.
func (f *File) resolvePaths(dir string) {
	resolve := func(path *string) {
		if *path != "" && !filepath.IsAbs(*path) {
			*path = filepath.Join(dir, *path)
		}
	}
	resolve(&f.Admin.Socket)
	resolve(&f.Admin.Events)
	for i := range f.L7 {
		s := &f.L7[i]
		s.EachFile(func(_ string, path *string) { resolve(path) })
		if s.TLS == nil {
			continue
		}
		for i := range s.TLS.Certificates {
			resolve(&s.TLS.Certificates[i].Cert)
			resolve(&s.TLS.Certificates[i].Key)
		}
	}
	if f.Peer != nil {
		resolve(&f.Peer.SecretFile)
	}
	for _, p := range f.Pools {
		p.EachFile(func(_ string, path *string) { resolve(path) })
	}
	f.eachCheck(func(_ string, check *health.Config) {
		resolve(&check.PasswordFile)
		resolve(&check.CAFile)
		resolve(&check.Cert)
		resolve(&check.Key)
	})
}

// checkFiles reports the files that the configuration names and that are of no
// use.
func (f *File) checkFiles(r *report) {
	for i, s := range f.L7 {
		s.CheckFiles(r.under(index("l7", i)))
		if s.TLS == nil {
			continue
		}
		for j, pair := range s.TLS.Certificates {
			if pair.Cert == "" || pair.Key == "" {
				continue // said already
			}
			checkPair(r, index(index("l7", i)+".tls.certificates", j), pair)
		}
	}
	f.checkSecret(r)
	for name, p := range f.Pools {
		p.CheckFiles(r.under(join("pool", name)))
	}
	f.eachCheck(func(path string, check *health.Config) {
		if check.PasswordFile != "" {
			if _, err := os.ReadFile(check.PasswordFile); err != nil {
				r.invalid(path+".password_file", "the password cannot be read: %v", readable(err))
			}
		}
		if check.CAFile != "" {
			if text, err := os.ReadFile(check.CAFile); err != nil {
				r.invalid(path+".ca_file", "the certificates cannot be read: %v", readable(err))
			} else if !x509.NewCertPool().AppendCertsFromPEM(text) {
				r.invalid(path+".ca_file", "%s has no certificate in PEM", check.CAFile)
			}
		}
		if check.Cert != "" && check.Key != "" {
			checkPair(r, path, l7.Certificate{Cert: check.Cert, Key: check.Key})
		}
	})
}

// checkPair reports the certificate at path when it is of no use.
func checkPair(r *report, path string, pair l7.Certificate) {
	_, err := certs.Load(pair.Cert, pair.Key)
	var part *certs.FileError
	switch {
	case errors.As(err, &part):
		r.invalid(join(path, part.Part), "%s", strings.TrimPrefix(readable(err).Error(), part.Part+": "))
	case err != nil:
		r.invalid(path, "%v", err)
	}
	if part != nil && part.Part == "cert" {
		// The key was not even looked at.
		if _, err := os.ReadFile(pair.Key); err != nil {
			r.invalid(path+".key", "%v", readable(err))
		}
	}
}

// readable adds to the error of reading a file what to do if its mode is in the way.
func readable(err error) error {
	if !errors.Is(err, fs.ErrPermission) {
		return err
	}
	return fmt.Errorf("%w; it must be readable for the user of this process: in the systemd unit that is root, who needs to be its owner there", err)
}

// eachCheck calls visit for every health check with the path of its key.
func (f *File) eachCheck(visit func(path string, check *health.Config)) {
	for name, p := range f.Pools {
		if p.Check != nil {
			visit(join("pool", name)+".check", p.Check)
		}
	}
	for i, s := range f.L4 {
		if s.Check != nil {
			visit(index("l4", i)+".check", s.Check)
		}
	}
	for i, s := range f.L7 {
		if s.Check != nil {
			visit(index("l7", i)+".check", s.Check)
		}
	}
}
