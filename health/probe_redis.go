package health

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

var errNotRedis = errors.New("the answer is not the Redis protocol")

// redisQuestion is what a check sends, and what it makes of the answer.
type redisQuestion struct {
	text  string
	judge func(respValue) error
}

// newRedisQuestion returns the question of these words.
func newRedisQuestion(judge func(respValue) error, words ...string) redisQuestion {
	var text strings.Builder
	fmt.Fprintf(&text, "*%d\r\n", len(words))
	for _, w := range words {
		fmt.Fprintf(&text, "$%d\r\n%s\r\n", len(w), w)
	}
	return redisQuestion{text.String(), judge}
}

// prepareRedis returns the exchange that passes when the target answers PING and, where
// the check expects a role, ROLE with that. The questions of login come before.
func prepareRedis(target Target, login ...redisQuestion) *exchange {
	check := target.Check
	questions, found := append(login, newRedisQuestion(wantText("PONG"), "PING")), "answered PONG"
	if check.Role != "" {
		questions, found = append(questions, newRedisQuestion(wantRole(check.Role), "ROLE")), found+" as "+check.Role
	}
	var text []byte
	for _, q := range questions {
		text = append(text, q.text...)
	}
	lines := newLineReader(nil)
	return &exchange{target.Address, text, maxRedisAnswer, func(answer []byte, ended error) (finding, error) {
		come := &soFar{answer: answer, ended: ended}
		lines.Reset(come)
		err := hearRedis(lines, questions)
		if come.short {
			return finding{}, errMore
		}
		return finding{words: found}, err
	}}
}

// prepareRedisLogin returns the probe of a check with a password. The file that has it
// is read for each check, which may take long: no batch is to wait for it.
func prepareRedisLogin(target Target) probe {
	client := clientOf(target)
	return func(ctx context.Context) (finding, error) {
		check := target.Check
		password, err := readPassword(check.PasswordFile)
		if err != nil {
			return finding{}, err
		}
		login := []string{"AUTH", password}
		if check.User != "" {
			login = []string{"AUTH", check.User, password}
		}
		return prepareRedis(target, newRedisQuestion(wantText("OK"), login...)).alone(ctx, target, client)
	}
}

// hearRedis hears the answers to questions that were put together; each has its turn.
func hearRedis(r *bufio.Reader, questions []redisQuestion) error {
	for _, q := range questions {
		v, err := readRESP(r, 0)
		if err != nil {
			return err
		}
		if v.refused {
			return errors.New(printable(v.text))
		}
		if err := q.judge(v); err != nil {
			return err
		}
	}
	return nil
}

// wantRole returns a judge of the answer to ROLE.
func wantRole(want string) func(respValue) error {
	return func(v respValue) error {
		if len(v.array) == 0 {
			return errNotRedis
		}
		if role := v.array[0].text; role != want {
			return fmt.Errorf("its role is %s, want %s", printable(role), want)
		}
		return nil
	}
}

// maxRedisAnswer bounds all answers to a check together, in bytes; the replicas
// that ROLE lists take some forty each.
const maxRedisAnswer = 64 << 10

// wantText returns a judge of an answer that is to be one text.
func wantText(text string) func(respValue) error {
	return func(v respValue) error {
		if v.text != text {
			return fmt.Errorf("answered %s, want %s", quoted([]byte(v.text)), text)
		}
		return nil
	}
}

// respValue is a value of the Redis serialization protocol, version 2.
type respValue struct {
	text    string // of a text, a number, or a refusal
	refused bool
	array   []respValue
}

// maxRESPDepth bounds how deep arrays may stand in arrays.
const maxRESPDepth = 4

// readRESP reads one value; depth is that of the array it stands in.
func readRESP(r *bufio.Reader, depth int) (respValue, error) {
	line, err := readLine(r)
	if err != nil {
		return respValue{}, err
	}
	if line == "" || depth > maxRESPDepth {
		return respValue{}, errNotRedis
	}
	switch text := line[1:]; line[0] {
	case '+', ':':
		return respValue{text: text}, nil
	case '-':
		return respValue{text: text, refused: true}, nil
	case '$':
		return readBulk(r, text)
	case '*':
		n, err := respLength(text)
		if err != nil {
			return respValue{}, err
		}
		var v respValue
		for range n { // ends with what comes, whatever was promised
			element, err := readRESP(r, depth+1)
			if err != nil {
				return respValue{}, err
			}
			v.array = append(v.array, element)
		}
		return v, nil
	}
	return respValue{}, errNotRedis
}

// readBulk reads a text of a length that its first line says.
func readBulk(r *bufio.Reader, length string) (respValue, error) {
	n, err := respLength(length)
	if err != nil {
		return respValue{}, err
	}
	if n < 0 {
		return respValue{}, nil
	}
	text, err := io.ReadAll(io.LimitReader(r, int64(n)+2))
	switch {
	case err != nil:
		return respValue{}, err
	case len(text) < n+2:
		return respValue{}, io.ErrUnexpectedEOF
	case string(text[n:]) != "\r\n":
		return respValue{}, errNotRedis
	}
	return respValue{text: string(text[:n])}, nil
}

// respLength reads a length; -1 stands for nothing.
func respLength(s string) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil || n < -1 || n > maxRedisAnswer {
		return 0, errNotRedis
	}
	return n, nil
}
