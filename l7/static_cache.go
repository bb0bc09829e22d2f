package l7

import (
	"bytes"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"
)

const (
	// cachedFor is for how long a small file is taken to be as it was.
	cachedFor = time.Second
	// cachedFile is the largest file that is kept, in any of its forms, and
	// cachedMost what all of a folder may be together.
	cachedFile = 64 << 10
	cachedMost = 8 << 20
)

// fileCache keeps small files of a folder that were asked for lately, because to
// open, read and close one costs more than all the rest of a request. The zero value
// is empty.
type fileCache struct {
	mu    sync.Mutex
	files map[string]*cachedFiles // by the path of the request
	size  int
}

// cachedFiles are a file and its packed forms.
type cachedFiles struct {
	until time.Time
	forms []cachedForm // the best first, the plain one last
	size  int
}

// cachedForm is one of them: a file and its content.
type cachedForm struct {
	openedFile // but for the file
	content    []byte
	head       fields
}

// get returns the form of a file that a request gets; nil if it is not kept.
func (c *fileCache) get(ex *exchange) *cachedForm {
	path := ex.out.target[:len(ex.out.target)-lenQuery(ex.out.target)]
	c.mu.Lock()
	f := c.files[path]
	c.mu.Unlock()
	if f == nil || !ex.now.Before(f.until) {
		return nil
	}
	return f.choose(ex)
}

// choose returns the best form that the client takes.
func (f *cachedFiles) choose(ex *exchange) *cachedForm {
	for i := range f.forms {
		if form := &f.forms[i]; form.coding == "" || acceptsCoding(ex.fields, form.coding) > 0 {
			return form
		}
	}
	return nil
}

// load reads a file that has been opened, and its packed forms, and keeps them. It
// returns nil if one of them is too large for that.
func (c *fileCache) load(root *os.Root, name string, plain openedFile, ex *exchange) *cachedForm {
	kept := &cachedFiles{until: ex.now.Add(cachedFor)}
	add := func(o openedFile) bool {
		form := cachedForm{openedFile: o}
		if !form.read() {
			return false
		}
		kept.forms = append(kept.forms, form)
		kept.size += len(form.content)
		return true
	}
	if compressible(plain.kind) {
		for _, pk := range packings {
			f, info, err := openFile(root, name+pk.end)
			if err != nil {
				continue
			}
			ok := !info.Mode().IsRegular() || add(openedFile{f, info, plain.kind, pk.coding})
			f.Close()
			if !ok {
				return nil
			}
		}
	}
	if !add(plain) {
		return nil
	}
	c.put(ex, kept)
	return kept.choose(ex)
}

// put keeps a file. When there is no room any more all others go.
func (c *fileCache) put(ex *exchange, kept *cachedFiles) {
	path := strings.Clone(ex.out.target[:len(ex.out.target)-lenQuery(ex.out.target)])
	kept.size += len(path) + 1<<10 // and what there is besides, about
	c.mu.Lock()
	defer c.mu.Unlock()
	if old := c.files[path]; old != nil {
		c.size -= old.size
	}
	if c.size+kept.size > cachedMost || c.files == nil {
		c.files, c.size = make(map[string]*cachedFiles), 0
	}
	c.files[path] = kept
	c.size += kept.size
}

// read reads the file, unless it is large or changes meanwhile.
func (f *cachedForm) read() bool {
	size := f.info.Size()
	if size > cachedFile {
		return false
	}
	content := make([]byte, size)
	if n, err := f.file.ReadAt(content, 0); int64(n) != size || err != nil && err != io.EOF {
		return false
	}
	now, err := f.file.Stat()
	if err != nil || now.Size() != size || !now.ModTime().Equal(f.info.ModTime()) {
		return false
	}
	f.content, f.file = content, nil
	f.head = f.appendHead(nil)
	return true
}

// tellCached answers with a file that is kept.
func (p *pipeline) tellCached(ex *exchange, f *cachedForm) error {
	if conditions := ex.conditions(); conditions != nil {
		w := &fileAnswer{p: p, ex: ex, coding: f.coding, header: f.conditional()}
		http.ServeContent(w, conditions, "", f.info.ModTime(), bytes.NewReader(f.content))
		return w.finish()
	}
	ex.out.head = append(ex.out.head[:0], f.head...)
	p.count.answered(http.StatusOK)
	if err := p.writeHead(ex, http.StatusOK, ex.out.head); err != nil {
		return err
	}
	if ex.method != http.MethodHead {
		if err := p.write(ex, f.content); err != nil {
			return err
		}
	}
	return finishFile(ex, nil)
}
