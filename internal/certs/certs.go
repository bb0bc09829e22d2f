package certs

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"strings"
)

// FileError says which file of a pair could not be used, and why.
type FileError struct {
	Part string // "cert" or "key"
	Path string
	Err  error
}

// Error names the part, the file unless the cause does so itself, and the cause.
func (e *FileError) Error() string {
	if pe := (*os.PathError)(nil); errors.As(e.Err, &pe) {
		return fmt.Sprintf("%s: %v", e.Part, e.Err)
	}
	return fmt.Sprintf("%s: %s: %v", e.Part, e.Path, e.Err)
}

// Unwrap returns the cause.
func (e *FileError) Unwrap() error { return e.Err }

// Load reads a chain of certificates, leaf first, and the leaf's private key,
// both PEM. In the result Leaf is set. The error is a *FileError; a key that
// belongs to another certificate is an error of Part "key". Whether the
// certificate is valid now is not judged.
func Load(cert, key string) (tls.Certificate, error) {
	text, err := os.ReadFile(cert)
	if err != nil {
		return tls.Certificate{}, &FileError{"cert", cert, err}
	}
	c, err := parseChain(text)
	if err != nil {
		return tls.Certificate{}, &FileError{"cert", cert, err}
	}
	if text, err = os.ReadFile(key); err != nil {
		return tls.Certificate{}, &FileError{"key", key, err}
	}
	signer, err := parseKey(text)
	if err != nil {
		return tls.Certificate{}, &FileError{"key", key, err}
	}
	public, ok := signer.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !public.Equal(c.Leaf.PublicKey) {
		return tls.Certificate{}, &FileError{"key", key, fmt.Errorf("this key does not match the certificate %s", cert)}
	}
	c.PrivateKey = signer
	return c, nil
}

// parseChain returns the certificates of a PEM text, the first as the leaf.
func parseChain(text []byte) (tls.Certificate, error) {
	var c tls.Certificate
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		parsed, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return tls.Certificate{}, fmt.Errorf("certificate %d of the file: %w", len(c.Certificate)+1, err)
		}
		if c.Leaf == nil {
			c.Leaf = parsed
		}
		c.Certificate = append(c.Certificate, block.Bytes)
	}
	if c.Leaf == nil {
		return tls.Certificate{}, errors.New("no certificate in the file; it must hold a PEM block CERTIFICATE")
	}
	return c, nil
}

// parseKey returns the first private key of a PEM text.
func parseKey(text []byte) (crypto.Signer, error) {
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			return nil, errors.New("no private key in the file; it must hold a PEM block PRIVATE KEY")
		}
		if !strings.HasSuffix(block.Type, "PRIVATE KEY") {
			continue // EC PARAMETERS, or the chain once more
		}
		if block.Type == "ENCRYPTED PRIVATE KEY" || block.Headers["DEK-Info"] != "" {
			return nil, errors.New("the private key is encrypted; store it without a passphrase")
		}
		return parseDER(block)
	}
}

func parseDER(block *pem.Block) (crypto.Signer, error) {
	var key any
	var err error
	switch block.Type {
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(block.Bytes)
	default:
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	}
	if err != nil {
		return nil, err
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("a key of type %T cannot sign", key)
	}
	return signer, nil
}
