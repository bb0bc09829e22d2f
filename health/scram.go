package health

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// scramMechanism is the way to log in of RFC 7677, without channel binding.
const scramMechanism = "SCRAM-SHA-256"

// maxScramRounds bounds how often a server may have a password hashed: it is
// this node that calculates. PostgreSQL's default is 4,096.
const maxScramRounds = 100_000

var errScram = errors.New("the server does not keep to SCRAM")

// scramExchange is the client's side of one login (RFC 5802, section 3).
type scramExchange struct {
	password string
	nonce    string // the client's
	cache    *scramCache
	// serverSignature is what the server will have to say.
	serverSignature []byte
	proven          bool
}

// scramCache keeps what the rounds of hashing gave, as long as password, salt
// and rounds stay the same: that is most of the work of a login.
type scramCache struct {
	password, salt string
	rounds         int
	salted         []byte
}

// of returns the salted password (RFC 5802, section 2.2, Hi).
func (c *scramCache) of(password, salt string, rounds int) ([]byte, error) {
	if c.salted == nil || c.password != password || c.salt != salt || c.rounds != rounds {
		salted, err := pbkdf2.Key(sha256.New, password, []byte(salt), rounds, sha256.Size)
		if err != nil {
			return nil, err
		}
		*c = scramCache{password, salt, rounds, salted}
	}
	return c.salted, nil
}

// newScramExchange begins a login; nonce is random and has no comma. The cache
// may be shared by logins one after the other.
func newScramExchange(password, nonce string, cache *scramCache) *scramExchange {
	return &scramExchange{password: password, nonce: nonce, cache: cache}
}

// bare is the client's first message without its head. PostgreSQL takes the
// user from elsewhere.
func (x *scramExchange) bare() string { return "n=,r=" + x.nonce }

// first returns the first message, as PostgreSQL's SASLInitialResponse.
func (x *scramExchange) first() []byte {
	message := "n,," + x.bare()
	m := append([]byte(scramMechanism), 0)
	m = binary.BigEndian.AppendUint32(m, uint32(len(message)))
	return append(m, message...)
}

// final answers the server's first message.
func (x *scramExchange) final(serverFirst []byte) ([]byte, error) {
	nonce, salt, rounds, err := parseServerFirst(string(serverFirst))
	if err != nil {
		return nil, err
	}
	if len(nonce) <= len(x.nonce) || !strings.HasPrefix(nonce, x.nonce) {
		return nil, errScram
	}
	if rounds > maxScramRounds {
		return nil, fmt.Errorf("the server wants the password hashed %d times, more than %d", rounds, maxScramRounds)
	}
	salted, err := x.cache.of(x.password, salt, rounds)
	if err != nil {
		return nil, err
	}
	withoutProof := "c=biws,r=" + nonce
	about := x.bare() + "," + string(serverFirst) + "," + withoutProof
	clientKey := hmacSHA256(salted, "Client Key")
	storedKey := sha256.Sum256(clientKey)
	proof := hmacSHA256(storedKey[:], about)
	for i := range proof {
		proof[i] ^= clientKey[i]
	}
	x.serverSignature = hmacSHA256(hmacSHA256(salted, "Server Key"), about)
	return []byte(withoutProof + ",p=" + base64.StdEncoding.EncodeToString(proof)), nil
}

// verify reads the server's final message, which proves that it knows the
// password too.
func (x *scramExchange) verify(serverFinal []byte) error {
	text, ok := strings.CutPrefix(string(serverFinal), "v=")
	signature, err := base64.StdEncoding.DecodeString(text)
	if !ok || err != nil || x.serverSignature == nil || !hmac.Equal(signature, x.serverSignature) {
		return errScram
	}
	x.proven = true
	return nil
}

// parseServerFirst reads "r=nonce,s=salt,i=rounds", and extensions behind that.
func parseServerFirst(s string) (nonce, salt string, rounds int, err error) {
	parts := strings.SplitN(s, ",", 4)
	if len(parts) < 3 {
		return "", "", 0, errScram
	}
	nonce, ok := strings.CutPrefix(parts[0], "r=")
	encoded, okSalt := strings.CutPrefix(parts[1], "s=")
	count, okRounds := strings.CutPrefix(parts[2], "i=")
	decoded, errSalt := base64.StdEncoding.DecodeString(encoded)
	rounds, errRounds := strconv.Atoi(count)
	if !ok || !okSalt || !okRounds || errSalt != nil || errRounds != nil || len(decoded) == 0 || rounds < 1 {
		return "", "", 0, errScram
	}
	return nonce, string(decoded), rounds, nil
}

func hmacSHA256(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}
