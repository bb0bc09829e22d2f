package peer

import (
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net"
	"time"
)

// What the identity is derived with: another purpose, or another version of this
// one, gives another key.
const (
	identitySalt = "applianctl peer link"
	identityInfo = "ed25519 identity 1"
)

// protocolName is what both ends of the TLS connection say they speak (ALPN).
const protocolName = "applianctl-peer"

// errSecret is the error of a handshake with a node that has another secret.
var errSecret = errors.New("its secret is another one than this node's; copy the file of peer.secret_file from one node to the other")

// identity returns the TLS configuration of both ends: one certificate, derived
// from the secret, and the demand for exactly that one from the other end. The
// certificate's times mean nothing, so that no clock can break the link; that a
// handshake is fresh is for TLS 1.3 to show, and no session is ever resumed.
func identity(secret []byte) (*tls.Config, error) {
	seed, err := hkdf.Key(sha256.New, secret, []byte(identitySalt), identityInfo, ed25519.SeedSize)
	if err != nil {
		return nil, fmt.Errorf("deriving a key from the secret: %w", err)
	}
	key := ed25519.NewKeyFromSeed(seed)
	public := key.Public().(ed25519.PublicKey)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: protocolName},
		NotBefore:    time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC),
		NotAfter:     time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC),
	}
	// An Ed25519 signature takes no random numbers: both ends make the same bytes.
	der, err := x509.CreateCertificate(nil, template, template, public, key)
	if err != nil {
		return nil, fmt.Errorf("making a certificate of the secret: %w", err)
	}
	return &tls.Config{
		Certificates:           []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
		MinVersion:             tls.VersionTLS13,
		NextProtos:             []string{protocolName},
		CurvePreferences:       []tls.CurveID{tls.X25519},
		SessionTicketsDisabled: true,
		ClientAuth:             tls.RequireAnyClientCert,
		// No authority has signed the certificate: VerifyConnection asks for this
		// one, and TLS itself for the proof that the other end has its key.
		InsecureSkipVerify: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			if len(s.PeerCertificates) != 1 || !public.Equal(s.PeerCertificates[0].PublicKey) {
				return errSecret
			}
			if s.NegotiatedProtocol != protocolName {
				return errors.New("it speaks no " + protocolName)
			}
			return nil
		},
	}, nil
}

// explain turns the error of a handshake into words for people.
func explain(err error) error {
	// crypto/tls tells errSecret to the other end by this alert.
	const badCertificate = tls.AlertError(42)
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "remote error" && op.Err.Error() == badCertificate.Error() {
		return errors.New("it refuses this node's secret")
	}
	return err
}
