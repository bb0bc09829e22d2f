package peer

import (
	"bytes"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
)

// minSecret and maxSecret bound the length of a secret in bytes. A stranger who
// connects gets to see a public key that was derived from it, and could try
// secrets at leisure: it must not be one that can be guessed.
const (
	minSecret = 32
	maxSecret = 4096
)

// NewSecret returns a fresh secret, in text for a file.
func NewSecret() string {
	var b [32]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// ReadSecret reads the secret in the file at path, without the blanks around
// it. It refuses a file that others may read or change, one of another user who
// is not root, and a secret shorter than 32 bytes.
func ReadSecret(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if err := judgeFile(path, info); err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	if err != nil {
		return nil, err
	}
	secret := bytes.TrimSpace(text)
	switch {
	case len(text) > maxSecret:
		return nil, fmt.Errorf("%s is larger than a secret may be, %d bytes", path, maxSecret)
	case len(secret) < minSecret:
		return nil, fmt.Errorf("%s holds %d bytes; a secret has %d at least: applianctl secret prints one", path, len(secret), minSecret)
	}
	return secret, nil
}

// Derive returns 32 bytes for another purpose than the link, the same wherever the
// secret is the same. They tell nothing of the secret nor of what is derived for
// other purposes.
func Derive(secret []byte, purpose string) []byte {
	// It fails for lengths alone that are out of the question.
	key, _ := hkdf.Key(sha256.New, secret, []byte("applianctl derived"), purpose, sha256.Size)
	return key
}

// judgeFile says why the secret in a file is none.
func judgeFile(path string, info os.FileInfo) error {
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is no regular file", path)
	}
	if mode := info.Mode().Perm(); mode&0o027 != 0 {
		return fmt.Errorf("%s has mode %04o, so others may read or change it: chmod 600 %s", path, mode, path)
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return errors.New("the owner of " + path + " is not known")
	}
	if uid := int(owner.Uid); uid != 0 && uid != os.Geteuid() {
		return fmt.Errorf("%s belongs to user %d, who could replace it: chown root %s", path, uid, path)
	}
	return nil
}
