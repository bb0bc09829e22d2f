package link

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Speakers returns the names of the programs of this machine, other than this one,
// that have a raw socket for VRRP, such as keepalived. One whose open files this
// process may not look at is called "another program". Programs that speak by packet
// sockets, as this one does but for unicast, are not found.
func Speakers() ([]string, error) {
	inodes := make(map[string]bool)
	for _, table := range []string{"/proc/self/net/raw", "/proc/self/net/raw6"} {
		text, err := os.ReadFile(table)
		switch {
		case os.IsNotExist(err):
		case err != nil:
			return nil, fmt.Errorf("list raw sockets: %w", err)
		default:
			rawSockets(string(text), protocolVRRP, inodes)
		}
	}
	if len(inodes) == 0 {
		return nil, nil
	}
	return owners(inodes), nil
}

// rawSockets adds the inodes of the sockets of a protocol that are listed in text, the
// content of /proc/net/raw.
func rawSockets(text string, protocol int, inodes map[string]bool) {
	lines := bufio.NewScanner(strings.NewReader(text))
	for lines.Scan() {
		// sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode ...
		f := strings.Fields(lines.Text())
		if len(f) < 10 {
			continue
		}
		_, port, ok := strings.Cut(f[1], ":") // where TCP has its port, the protocol is
		if n, err := strconv.ParseUint(port, 16, 16); ok && err == nil && int(n) == protocol {
			inodes[f[9]] = true
		}
	}
}

// owners returns the names of the programs that have sockets open, each once, and
// without this one.
func owners(inodes map[string]bool) []string {
	self, _ := os.ReadFile("/proc/self/comm")
	left := len(inodes)
	seen := make(map[string]bool, left)
	var names []string
	files, _ := filepath.Glob("/proc/[0-9]*/fd/[0-9]*") // those that can be seen
	for _, path := range files {
		target, err := os.Readlink(path)
		inode := strings.TrimSuffix(strings.TrimPrefix(target, "socket:["), "]")
		if err != nil || !inodes[inode] {
			continue
		}
		if !seen[inode] {
			seen[inode] = true
			left--
		}
		name, err := os.ReadFile(filepath.Dir(filepath.Dir(path)) + "/comm")
		if err != nil || bytes.Equal(name, self) {
			continue
		}
		if text := strings.TrimSpace(string(name)); !slices.Contains(names, text) {
			names = append(names, text)
		}
	}
	if left > 0 {
		names = append(names, "another program")
	}
	return names
}
