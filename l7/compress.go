package l7

import (
	"cmp"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// Compress packs answers on their way to clients that take them so. Those that
// are packed already, are a part, or say no-transform pass as they are.
type Compress struct {
	// Algorithms are "zstd" and "gzip" in the order of preference; default both.
	Algorithms []string `toml:"algorithms"`
	// Types are the types of content that are packed, such as "text/html", or
	// "text/*"; default those that become smaller.
	Types []string `toml:"types"`
	// MinSize is the size of a body, in bytes, from which on it is worth it;
	// default 1 KiB. Bodies of unknown length are taken to be large.
	MinSize int64 `toml:"min_size"`
	// MaxAnswers is how many answers are packed at a time, each of which takes up to 2
	// MiB of memory, and a client that reads nothing keeps that; more pass as they
	// are. Default 256.
	MaxAnswers int `toml:"max_answers"`
}

// EffectiveAlgorithms returns Algorithms with its default applied.
func (c Compress) EffectiveAlgorithms() []string {
	if len(c.Algorithms) == 0 {
		return []string{"zstd", "gzip"}
	}
	return c.Algorithms
}

// EffectiveMinSize returns MinSize with its default applied.
func (c Compress) EffectiveMinSize() int64 { return cmp.Or(c.MinSize, 1<<10) }

// EffectiveMaxAnswers returns MaxAnswers with its default applied.
func (c Compress) EffectiveMaxAnswers() int { return cmp.Or(c.MaxAnswers, 256) }

func (c *Compress) validate(at string, problem func(key, message string)) {
	if c == nil {
		return
	}
	for i, a := range c.Algorithms {
		if a != "zstd" && a != "gzip" {
			problem(fmt.Sprintf("%s.algorithms[%d]", at, i), fmt.Sprintf("unknown algorithm %q; known: zstd, gzip", a))
		}
	}
	for i, t := range c.Types {
		if kind, sub, ok := strings.Cut(t, "/"); !ok || kind == "" || sub == "" || strings.ContainsAny(t, "; ") {
			problem(fmt.Sprintf("%s.types[%d]", at, i), fmt.Sprintf("%q is no type such as \"text/html\" or \"text/*\"", t))
		}
	}
	if c.MinSize < 0 || c.MinSize > 1<<30 {
		problem(at+".min_size", "the size must be between 1 byte and 1GiB")
	}
	if c.MaxAnswers < 0 || c.MaxAnswers > 1000000 {
		problem(at+".max_answers", "the number must be between 1 and 1000000")
	}
}

// packer is what packs; both kinds have these methods.
type packer interface {
	io.WriteCloser
	Flush() error
	Reset(io.Writer)
}

// compress is Compress, compiled. Packers are used again, for they are large.
type compress struct {
	algorithms []string
	types      []string
	minSize    int64
	idle       map[string]*sync.Pool
	most       int64
	busy       atomic.Int64 // packers at work
	complains  seldom       // that these are too many, in the log
}

func newCompress(cfg *Compress) *compress {
	if cfg == nil {
		return nil
	}
	c := &compress{algorithms: cfg.EffectiveAlgorithms(), types: cfg.Types, minSize: cfg.EffectiveMinSize(),
		most: int64(cfg.EffectiveMaxAnswers()), idle: make(map[string]*sync.Pool)}
	for _, a := range c.algorithms {
		c.idle[a] = &sync.Pool{}
	}
	return c
}

// zstdWindow bounds what a client needs to unpack, and we to pack (RFC 9659 allows
// 8 MiB).
const zstdWindow = 256 << 10

func newPacker(algorithm string) packer {
	if algorithm == "zstd" {
		// Fails only for options that are wrong.
		w, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(zstdWindow), zstd.WithLowerEncoderMem(true),
			zstd.WithEncoderLevel(zstd.SpeedDefault))
		if err == nil {
			return w
		}
	}
	w, _ := gzip.NewWriterLevel(nil, 5) // fails only for an unknown level
	return w
}

// begin looks at the head of an answer, which is the caller's, and returns it as
// it is to be sent. If the body is to be packed, it puts itself in the place of
// ex.answer. full says that it is not only because as many are as may.
func (c *compress) begin(ex *exchange, status int, head fields) (_ fields, full bool) {
	if !c.wants(ex, status, head) {
		return head, false
	}
	if !head.hasToken("Vary", "Accept-Encoding") && !head.hasToken("Vary", "*") {
		head = append(head, field{Name: "Vary", Value: "Accept-Encoding"})
	}
	algorithm, best := "", 0.0
	for _, a := range c.algorithms {
		if q := acceptsCoding(ex.fields, a); q > best {
			algorithm, best = a, q
		}
	}
	if algorithm == "" {
		return head, false
	}
	packs := ex.method != http.MethodHead
	if packs && c.busy.Add(1) > c.most {
		c.busy.Add(-1)
		return head, true
	}
	for _, name := range []string{"Content-Length", "Accept-Ranges", "Content-MD5", "Digest", "Content-Digest", "Repr-Digest", "Content-Encoding"} {
		head = head.without(name)
	}
	for i := range head {
		// The bytes are others now, and those who know the ETag mean the content.
		if f := &head[i]; strings.EqualFold(f.Name, "ETag") && !strings.HasPrefix(f.Value, "W/") {
			f.Value = "W/" + f.Value
		}
	}
	head = append(head, field{Name: "Content-Encoding", Value: algorithm})
	if !packs {
		return head, false
	}
	w := &packedAnswer{answerWriter: ex.answer, by: c, idle: c.idle[algorithm], ex: ex}
	if w.packer, _ = w.idle.Get().(packer); w.packer == nil {
		w.packer = newPacker(algorithm)
	}
	w.packer.Reset(plainWriter{w})
	ex.answer = w
	return head, false
}

// wants reports whether an answer is one to be packed.
func (c *compress) wants(ex *exchange, status int, head fields) bool {
	switch status {
	case http.StatusNoContent, http.StatusPartialContent, http.StatusNotModified:
		return false
	}
	for i := range head {
		f := &head[i]
		switch {
		case strings.EqualFold(f.Name, "Content-Encoding") && !strings.EqualFold(f.Value, "identity"),
			strings.EqualFold(f.Name, "Content-Range"):
			return false
		case strings.EqualFold(f.Name, "Content-Length"):
			if n, err := strconv.ParseInt(f.Value, 10, 64); err != nil || n < c.minSize {
				return false
			}
		}
	}
	return c.packs(head.get("Content-Type")) && !head.hasToken("Cache-Control", "no-transform") && !ex.fields.hasToken("Cache-Control", "no-transform")
}

// packs reports whether content of that type is packed.
func (c *compress) packs(contentType string) bool {
	if len(c.types) == 0 {
		return compressible(contentType)
	}
	kind, _, _ := strings.Cut(contentType, ";")
	kind = strings.TrimSpace(kind)
	for _, t := range c.types {
		if family, ok := strings.CutSuffix(t, "*"); ok && len(kind) > len(family) && strings.EqualFold(kind[:len(family)], family) || strings.EqualFold(kind, t) {
			return true
		}
	}
	return false
}

// packedAnswer packs the body of an answer.
type packedAnswer struct {
	answerWriter
	packer packer // nil: it has been given back
	by     *compress
	idle   *sync.Pool
	ex     *exchange
	sent   int64 // packed bytes
	dirty  bool  // the packer may hold something back
}

// plainWriter is where the packer writes to.
type plainWriter struct{ a *packedAnswer }

func (w plainWriter) Write(b []byte) (int, error) {
	n, err := w.a.answerWriter.Write(b)
	w.a.sent += int64(n)
	return n, err
}

// Write is described at answerWriter.
func (a *packedAnswer) Write(b []byte) (int, error) {
	before := a.sent
	a.dirty = true
	n, err := a.packer.Write(b)
	a.ex.gave(a.sent - before - int64(n)) // the caller counts n
	return n, err
}

// Flush is described at answerWriter.
func (a *packedAnswer) Flush() error {
	if a.dirty {
		a.dirty = false
		before := a.sent
		err := a.packer.Flush()
		a.ex.gave(a.sent - before)
		if err != nil {
			return err
		}
	}
	return a.answerWriter.Flush()
}

// Finish is described at answerWriter.
func (a *packedAnswer) Finish(trailers fields) error {
	before := a.sent
	err := a.packer.Close()
	a.ex.gave(a.sent - before)
	if err != nil {
		return err
	}
	a.end()
	return a.answerWriter.Finish(trailers)
}

// end gives the packer back, be the answer whole or not.
func (a *packedAnswer) end() {
	if a.packer == nil {
		return
	}
	a.packer.Reset(nil)
	a.idle.Put(a.packer)
	a.packer = nil
	a.by.busy.Add(-1)
}
