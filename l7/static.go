package l7

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path"
	"strconv"
	"strings"
	"syscall"
	"time"

	"appliance/l7/accesslog"
)

// Files is a folder whose files are answers. In the file it may be the folder's
// path alone.
type Files struct {
	// Root is the folder; required. Nothing outside of it is ever shown, whatever
	// links lead there.
	Root string `toml:"root"`
	// Index is the file that stands for its folder; default "index.html".
	Index string `toml:"index"`
}

// UnmarshalText reads the short form.
func (f *Files) UnmarshalText(text []byte) error {
	f.Root = string(text)
	return nil
}

// EffectiveIndex returns Index with its default applied.
func (f Files) EffectiveIndex() string {
	if f.Index == "" {
		return "index.html"
	}
	return f.Index
}

func (f *Files) validate(at string, problem func(key, message string)) {
	if f.Root == "" {
		problem(at+".root", "files need the folder that they are in")
	}
	if strings.ContainsAny(f.Index, "/\x00") {
		problem(at+".index", fmt.Sprintf("%q is no name of a file", f.Index))
	}
}

// checkFolder returns why a folder cannot be the root of files.
func checkFolder(root string) error {
	r, err := os.OpenRoot(root)
	if err != nil {
		return err
	}
	return r.Close()
}

// static answers from a folder. The folder is opened for each request that no kept
// file is for, so that one that has taken its place is seen.
type static struct {
	root, index string
	cache       fileCache
	complains   seldom // of trouble, in the log
}

// complainEvery is how often trouble is logged that any client can make.
const complainEvery = 10 * time.Second

// file answers with a file. If the route has a pool too, what is no file goes
// there.
func (p *pipeline) file(ctx context.Context, st *state, to *target, ex *exchange) error {
	if ex.method != http.MethodGet && ex.method != http.MethodHead {
		if to.pool != nil {
			return p.forward(ctx, st, to, ex)
		}
		return p.say(ex, http.StatusMethodNotAllowed, field{Name: "Allow", Value: "GET, HEAD"})
	}
	o, kept, err := to.files.open(ex)
	switch {
	case err == errNoSlash:
		return p.say(ex, http.StatusMovedPermanently, field{Name: "Location", Value: withSlash(ex.target)})
	case err != nil:
		return p.noFile(ctx, st, to, ex, err)
	case kept != nil:
		return p.tellCached(ex, kept)
	}
	defer o.file.Close()
	w := &fileAnswer{p: p, ex: ex, coding: o.coding}
	if conditions := ex.conditions(); conditions != nil {
		w.header = o.conditional()
		http.ServeContent(w, conditions, "", o.info.ModTime(), o.file)
	} else {
		w.whole(o)
	}
	return w.finish()
}

func (w *fileAnswer) finish() error { return finishFile(w.ex, w.err) }

// finishFile ends an answer that has come about with err.
func finishFile(ex *exchange, err error) error {
	if err == nil {
		err = ex.answer.Finish(nil)
	}
	if err == nil {
		ex.because(accesslog.Own, nil)
	}
	return err
}

// conditional returns what http.ServeContent has to know of a file.
func (o *openedFile) conditional() http.Header {
	h := http.Header{"Content-Type": {o.kind}, "Etag": {o.tag()}}
	if compressible(o.kind) {
		h["Vary"] = []string{"Accept-Encoding"}
	}
	return h
}

// appendHead appends the head of an answer that has all of the file.
func (o *openedFile) appendHead(head fields) fields {
	head = append(head,
		field{Name: "Content-Type", Value: o.kind},
		field{Name: "Content-Length", Value: strconv.FormatInt(o.info.Size(), 10)},
		field{Name: "Last-Modified", Value: o.info.ModTime().UTC().Format(http.TimeFormat)},
		field{Name: "ETag", Value: o.tag()},
		field{Name: "Accept-Ranges", Value: "bytes"})
	if compressible(o.kind) {
		head = append(head, field{Name: "Vary", Value: "Accept-Encoding"})
	}
	if o.coding != "" {
		head = append(head, field{Name: "Content-Encoding", Value: o.coding})
	}
	return head
}

// openedFile is a file that answers a request.
type openedFile struct {
	file   *os.File
	info   fs.FileInfo
	kind   string // of its content
	coding string // that it is packed in; "": none
}

// tag returns the validator of a file: strong, for a file that is changed has
// another time or size.
func (o *openedFile) tag() string {
	coding := ""
	if o.coding != "" {
		coding = "-" + o.coding
	}
	return `"` + strconv.FormatInt(o.info.ModTime().UnixNano(), 16) + "-" + strconv.FormatInt(o.info.Size(), 16) + coding + `"`
}

// errNoSlash says that a folder was asked for without a slash at the end, against
// which the links of its page would lead elsewhere.
var errNoSlash = errors.New("a folder without a slash")

// open opens the file that a request asks for; the caller closes it. Or the file is
// kept, and there is nothing to close.
func (s *static) open(ex *exchange) (o openedFile, kept *cachedForm, err error) {
	if kept := s.cache.get(ex); kept != nil {
		return o, kept, nil
	}
	name, slash, ok := fileName(ex.out.target)
	if !ok {
		return o, nil, fs.ErrNotExist
	}
	root, err := os.OpenRoot(s.root)
	if err != nil {
		return o, nil, err
	}
	defer root.Close()
	if o.file, o.info, err = openFile(root, name); err != nil {
		return o, nil, err
	}
	if o.info.IsDir() {
		o.file.Close()
		name = path.Join(name, s.index)
		if o.file, o.info, err = openFile(root, name); err != nil {
			return o, nil, err
		}
		if !slash {
			o.file.Close()
			return o, nil, errNoSlash
		}
		slash = false
	}
	if slash || !o.info.Mode().IsRegular() {
		o.file.Close()
		return o, nil, fs.ErrNotExist
	}
	o.kind = contentType(name)
	if o.info.Size() <= cachedFile {
		if kept := s.cache.load(root, name, o, ex); kept != nil {
			o.file.Close()
			return o, kept, nil
		}
	}
	if compressible(o.kind) {
		if coding, packed, info := openPacked(root, name, ex.fields); packed != nil {
			o.file.Close()
			o.file, o.info, o.coding = packed, info, coding
		}
	}
	return o, nil, nil
}

// whole answers with all of a file.
func (w *fileAnswer) whole(o openedFile) {
	head := o.appendHead(w.ex.out.head[:0])
	w.ex.out.head = head
	w.p.count.answered(http.StatusOK)
	w.began = true
	if w.err = w.p.writeHead(w.ex, http.StatusOK, head); w.err == nil && w.ex.method != http.MethodHead {
		_, _ = w.ReadFrom(&io.LimitedReader{R: o.file, N: o.info.Size()}) // w.err has its error
	}
}

// noFile answers a request for a file that cannot be opened.
func (p *pipeline) noFile(ctx context.Context, st *state, to *target, ex *exchange, err error) error {
	switch {
	case errors.Is(err, fs.ErrPermission):
		if to.files.complains.may(ex.now, complainEvery) {
			p.log.Warn().Err(err).Msg("a file may not be read")
		}
		ex.because(accesslog.Denied, err)
		return p.refuse(ex, http.StatusForbidden)
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE), errors.Is(err, syscall.EIO):
		if to.files.complains.may(ex.now, complainEvery) {
			p.log.Error().Err(err).Msg("a file cannot be opened")
		}
		ex.because(accesslog.Failed, err)
		return p.refuse(ex, http.StatusInternalServerError)
	}
	if to.pool != nil {
		return p.forward(ctx, st, to, ex)
	}
	return p.refuse(ex, http.StatusNotFound) // also what leads out of the root
}

// fileName returns the name of the file that a target asks for, below the root.
// slash says that there was one at the end.
func fileName(target string) (name string, slash, ok bool) {
	raw := target[:len(target)-lenQuery(target)]
	decoded, err := url.PathUnescape(raw)
	if err != nil || !strings.HasPrefix(decoded, "/") || strings.IndexByte(decoded, 0) >= 0 {
		return "", false, false
	}
	clean := path.Clean(decoded)
	for segment := range strings.SplitSeq(clean, "/") {
		// What begins with a dot, such as .git or .env, was not put there for all.
		if strings.HasPrefix(segment, ".") && segment != ".well-known" {
			return "", false, false
		}
	}
	if clean == "/" {
		return ".", true, true
	}
	return clean[1:], strings.HasSuffix(decoded, "/"), true
}

// withSlash returns the target with a slash at the end of its path, in the form
// that leads to nowhere else.
func withSlash(target string) string {
	query := target[len(target)-lenQuery(target):]
	return (&url.URL{Path: strings.TrimSuffix(normalPath(target), "/") + "/"}).EscapedPath() + query
}

// openFile opens what may be a file or folder, without waiting for what is
// neither.
func openFile(root *os.Root, name string) (*os.File, fs.FileInfo, error) {
	f, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, info, nil
}

// packings are the codings of files that may lie beside the plain one, the best
// first.
var packings = [...]struct{ coding, end string }{{"br", ".br"}, {"zstd", ".zst"}, {"gzip", ".gz"}}

// openPacked opens the best packed form of a file that the client takes, if there
// is one.
func openPacked(root *os.Root, name string, request fields) (coding string, f *os.File, info fs.FileInfo) {
	for _, pk := range packings {
		if acceptsCoding(request, pk.coding) <= 0 {
			continue
		}
		f, info, err := openFile(root, name+pk.end)
		if err != nil {
			continue
		}
		if info.Mode().IsRegular() {
			return pk.coding, f, info
		}
		f.Close()
	}
	return "", nil, nil
}

// conditions returns the part of the request that http.ServeContent looks at, nil
// if there is none.
func (ex *exchange) conditions() (r *http.Request) {
	for _, f := range ex.fields {
		if len(f.Name) < len("Range") || f.Name[0]|0x20 != 'i' && f.Name[0]|0x20 != 'r' {
			continue
		}
		value := f.Value
		switch http.CanonicalHeaderKey(f.Name) {
		case "Range":
			// RFC 9110, section 14.2: other methods, and units that are not known, have
			// no ranges. http.ServeContent knows the unit in lower case alone.
			unit, set, _ := strings.Cut(value, "=")
			if ex.method != http.MethodGet || !strings.EqualFold(unit, "bytes") {
				continue
			}
			value = "bytes=" + set
		case "If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since", "If-Range":
		default:
			continue
		}
		if r == nil {
			r = &http.Request{Method: ex.method, Header: make(http.Header, 4)}
		}
		r.Header.Add(f.Name, value)
	}
	return r
}

// fileAnswer is where http.ServeContent writes to, which knows all about ranges
// and conditions.
type fileAnswer struct {
	p      *pipeline
	ex     *exchange
	header http.Header
	coding string // of the file; "": none
	began  bool
	err    error
}

func (w *fileAnswer) Header() http.Header { return w.header }

func (w *fileAnswer) WriteHeader(status int) {
	if w.began {
		return
	}
	w.began = true
	w.p.count.answered(status)
	if w.coding != "" && (status == http.StatusOK || status == http.StatusPartialContent) {
		// Not before, or the length would be left out.
		w.header.Set("Content-Encoding", w.coding)
	}
	head := w.ex.out.head[:0]
	for _, name := range sortedKeys(w.header) {
		for _, v := range w.header[name] {
			head = append(head, field{Name: name, Value: v})
		}
	}
	w.ex.out.head = head
	w.err = w.p.writeHead(w.ex, status, head)
}

func (w *fileAnswer) Write(b []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	if w.err == nil {
		w.err = w.p.write(w.ex, b)
	}
	if w.err != nil {
		return 0, w.err
	}
	return len(b), nil
}

// fileWriter is an answerWriter that can send a part of a file without reading it.
type fileWriter interface {
	// WriteFile sends n bytes of f from where it stands. It returns how many, which
	// is 0 without an error if they have to be written.
	WriteFile(f *os.File, n int64) (int64, error)
}

// ReadFrom takes the content of a file, or of several ranges.
func (w *fileAnswer) ReadFrom(r io.Reader) (total int64, err error) {
	part, _ := r.(*io.LimitedReader)
	if to, ok := w.ex.answer.(fileWriter); ok && part != nil {
		if f, ok := part.R.(*os.File); ok && w.err == nil {
			n, err := to.WriteFile(f, part.N)
			w.ex.gave(n)
			if part.N -= n; err != nil {
				w.err = err
				return n, err
			}
			total = n
		}
	}
	in := inboxes.Get().(*inbox)
	defer putInbox(in)
	n, err := io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{r}, in.b)
	if err == nil && part != nil && part.N > 0 {
		err = io.ErrUnexpectedEOF // the file has become shorter
	}
	if err != nil && w.err == nil {
		w.err = fmt.Errorf("%w: %w", errAborted, err)
	}
	return total + n, err
}

var (
	_ io.ReaderFrom       = (*fileAnswer)(nil)
	_ http.ResponseWriter = (*fileAnswer)(nil)
	_ fileWriter          = (*http1Answer)(nil)
)
