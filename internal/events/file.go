package events

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
)

// fileLimit is the size in bytes at which the file is set aside, in the place of
// the one that was set aside before.
const fileLimit = 1 << 20

// older is what the name of the file that was set aside ends with.
const older = ".1"

// file is where the history is kept. It is opened for each write, which is rare:
// so whoever removes, moves or rotates it, or makes room on its disk, needs to
// tell nobody.
type file struct {
	path  string
	limit int64 // fileLimit when 0
}

var errNoFile = errors.New("this is no regular file")

// read returns the events of both files. What does not read as one, such as a
// line that a crash cut off, is left out.
func (f *file) read() ([]Event, error) {
	var list []Event
	var failed []error
	for _, path := range []string{f.path + older, f.path} {
		text, err := tail(path)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			failed = append(failed, err)
		}
		list = appendEvents(list, text)
	}
	return list, errors.Join(failed...)
}

// tail returns the end of the file at path, fileLimit at most.
func tail(path string) ([]byte, error) {
	// A pipe must not make the start wait for a writer.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: %w", path, errNoFile)
	}
	return io.ReadAll(io.NewSectionReader(f, max(0, info.Size()-fileLimit), fileLimit))
}

// appendEvents appends to list the events that text holds, one a line. Numbers
// that do not grow, as of files that were put together by hand, are replaced.
func appendEvents(list []Event, text []byte) []Event {
	for line := range bytes.Lines(text) {
		var e Event
		if err := json.Unmarshal(line, &e); err != nil || e.Kind == "" {
			continue
		}
		if n := len(list); n > 0 && e.Seq <= list[n-1].Seq {
			e.Seq = list[n-1].Seq + 1
		}
		list = append(list, e)
	}
	return list
}

// write appends list, and returns when it is on the disk.
func (f *file) write(list []Event) error {
	var text []byte
	for _, e := range list {
		line, err := json.Marshal(e)
		if err != nil {
			return fmt.Errorf("an event cannot be written: %w", err)
		}
		text = append(append(text, line...), '\n')
	}
	to, err := f.open()
	if err != nil {
		return err
	}
	info, err := to.Stat()
	if err == nil {
		_, err = to.Write(text)
	}
	if err != nil {
		if info != nil {
			// A part of it would be there twice after the next attempt.
			err = errors.Join(err, to.Truncate(info.Size()))
		}
		return errors.Join(err, to.Close())
	}
	return errors.Join(to.Sync(), to.Close())
}

// open opens the file to append whole lines to it, after setting it aside if it
// is large.
func (f *file) open() (*os.File, error) {
	limit := f.limit
	if limit == 0 {
		limit = fileLimit
	}
	if info, err := os.Lstat(f.path); err == nil && info.Mode().IsRegular() && info.Size() >= limit {
		if err := os.Rename(f.path, f.path+older); err != nil {
			return nil, err
		}
	}
	if err := os.MkdirAll(filepath.Dir(f.path), 0o755); err != nil {
		return nil, err
	}
	to, err := os.OpenFile(f.path, os.O_RDWR|os.O_APPEND|os.O_CREATE|syscall.O_NONBLOCK, 0o640)
	if err != nil {
		return nil, err
	}
	info, err := to.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s: %w", f.path, errNoFile)
	}
	if err == nil && info.Size() > 0 {
		err = endLine(to, info.Size())
	}
	if err != nil {
		return nil, errors.Join(err, to.Close())
	}
	return to, nil
}

// endLine ends the last line of a file of that size, if a crash or a full disk
// has cut it off.
func endLine(f *os.File, size int64) error {
	last := make([]byte, 1)
	if _, err := f.ReadAt(last, size-1); err != nil {
		return err
	}
	if last[0] == '\n' {
		return nil
	}
	_, err := f.Write([]byte{'\n'})
	return err
}
