package health

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
)

// pg returns a message of a server.
func pg(kind byte, body string) string { return string(pgMessage(kind, []byte(body))) }

func pgAuth(way byte, data string) string { return pg('R', "\x00\x00\x00"+string(way)+data) }

func pgErr(code, message string) string {
	return pg('E', "SFATAL\x00C"+code+"\x00M"+message+"\x00\x00")
}

const pgReadyBody = "I"

// pgRow is a row of one column.
func pgRow(value string) string {
	body := []byte{0, 1}
	body = binary.BigEndian.AppendUint32(body, uint32(len(value)))
	return pg('D', string(body)+value)
}

// replay is a server that says the next of answers whenever the client has said
// something, and notes what.
func replay(heard chan<- string, answers ...string) func(net.Conn) {
	return func(c net.Conn) {
		buf := make([]byte, 4096)
		for {
			n, err := c.Read(buf)
			if err != nil {
				if heard != nil {
					close(heard)
				}
				return
			}
			if heard != nil {
				heard <- string(buf[:n])
			}
			if len(answers) > 0 {
				_, _ = io.WriteString(c, answers[0])
				answers = answers[1:]
			}
		}
	}
}

func TestPostgres(t *testing.T) {
	welcome := pgAuth(pgAuthOK, "") + pg('S', "server_version\x0015\x00") + pg('K', "12345678") + pg('Z', pgReadyBody)
	user := Config{User: "lb", PasswordFile: secretFile(t)}
	query := Config{User: "lb", PasswordFile: user.PasswordFile, Query: "SELECT 1"}
	expect := query
	expect.Expect = "f"
	done := pg('C', "SELECT 1\x00") + pg('Z', pgReadyBody)
	tests := map[string]struct {
		conversation
		check Config
	}{
		"asks for a password":    {conversation{replay(nil, pgAuth(pgAuthSASL, scramMechanism+"\x00\x00")), ample, "up: accepts logins"}, Config{}},
		"lets everybody in":      {conversation{replay(nil, welcome), ample, "up: accepts logins"}, Config{}},
		"does not know us":       {conversation{replay(nil, pgErr("28000", "no pg_hba.conf entry")), ample, "up: accepts logins"}, Config{}},
		"has no such database":   {conversation{replay(nil, pgErr("3D000", "no such database")), ample, "up: accepts logins"}, Config{}},
		"a notice first":         {conversation{replay(nil, pg('N', "Mhi\x00\x00")+pgAuth(pgAuthMD5, "salt")), ample, "up: accepts logins"}, Config{}},
		"starts":                 {conversation{replay(nil, pgErr("57P03", "the database system is starting up")), ample, "down: the database system is starting up (57P03)"}, Config{}},
		"is full":                {conversation{replay(nil, pgErr("53300", "sorry, too many clients already")), ample, "down: sorry, too many clients already (53300)"}, Config{}},
		"old error":              {conversation{replay(nil, "Eodd words\n\x00"), ample, "down: " + errNotPostgres.Error()}, Config{}},
		"endless notices":        {conversation{endlessly(pg('N', "Mhi\x00\x00")), ample, "down: " + errNotPostgres.Error()}, Config{}},
		"silent":                 {conversation{silent, short, "down: no answer within 150ms"}, Config{}},
		"closes at once":         {conversation{replayOnce(), ample, "down: connection closed by the server"}, Config{}},
		"speaks SSH":             {conversation{say("SSH-2.0-OpenSSH_9.2\r\n"), ample, "down: " + errNotPostgres.Error()}, Config{}},
		"half a message":         {conversation{say("R\x00\x00\x00\x08\x00"), short, "down: no answer within 150ms"}, Config{}},
		"a huge message":         {conversation{say("R\x7f\xff\xff\xff"), ample, "down: " + errNotPostgres.Error()}, Config{}},
		"a message of less":      {conversation{say("R\x00\x00\x00\x03"), ample, "down: " + errNotPostgres.Error()}, Config{}},
		"a way of no length":     {conversation{say(pg('R', "\x00")), ample, "down: " + errNotPostgres.Error()}, Config{}},
		"trusts the user":        {conversation{replay(nil, welcome), ample, "up: logged in"}, user},
		"clear text":             {conversation{replay(nil, pgAuth(pgAuthCleartext, ""), welcome), ample, "up: logged in"}, user},
		"MD5":                    {conversation{replay(nil, pgAuth(pgAuthMD5, "salt"), welcome), ample, "up: logged in"}, user},
		"MD5 without salt":       {conversation{replay(nil, pgAuth(pgAuthMD5, "s"), welcome), ample, "down: " + errNotPostgres.Error()}, user},
		"another way":            {conversation{replay(nil, pgAuth(7, "")), ample, "down: the server asks to log in in a way that the check does not know (7)"}, user},
		"another SASL":           {conversation{replay(nil, pgAuth(pgAuthSASL, "PLAIN\x00\x00")), ample, "down: the server does not log in by SCRAM-SHA-256"}, user},
		"SASL from the middle":   {conversation{replay(nil, pgAuth(pgAuthSASLContinue, "r=x")), ample, "down: " + errNotPostgres.Error()}, user},
		"SASL without proof":     {conversation{replay(nil, pgAuth(pgAuthSASL, scramMechanism+"\x00\x00"), welcome), ample, "down: the server does not prove that it knows the password"}, user},
		"another nonce":          {conversation{replay(nil, pgAuth(pgAuthSASL, scramMechanism+"\x00\x00"), pgAuth(pgAuthSASLContinue, "r=mine,s=QQ==,i=4096")), ample, "down: " + errScram.Error()}, user},
		"denies":                 {conversation{replay(nil, pgAuth(pgAuthMD5, "salt"), pgErr("28P01", "password authentication failed")), ample, "down: password authentication failed (28P01)"}, user},
		"answers":                {conversation{replay(nil, welcome, pg('T', "\x00\x01")+pgRow("f")+done), ample, "up: logged in, query answered f"}, query},
		"answers NULL":           {conversation{replay(nil, welcome, pg('D', "\x00\x01\xff\xff\xff\xff")+done), ample, "up: logged in, query answered NULL"}, query},
		"answers as wanted":      {conversation{replay(nil, welcome, pgRow("f")+pgRow("t")+done), ample, "up: logged in, query answered f"}, expect},
		"answers otherwise":      {conversation{replay(nil, welcome, pgRow("t")+done), ample, `down: logged in, query answered "t", want "f"`}, expect},
		"has no row":             {conversation{replay(nil, welcome, done), ample, "down: logged in, query failed: it returned no row"}, query},
		"has no column":          {conversation{replay(nil, welcome, pg('D', "\x00\x00")+done), ample, "down: logged in, query failed: it returns no columns"}, query},
		"a row cut off":          {conversation{replay(nil, welcome, pg('D', "\x00\x01\x00\x00\x00\x09f")+done), ample, "down: logged in, query failed: " + errNotPostgres.Error()}, query},
		"cannot":                 {conversation{replay(nil, welcome, pgErr("42703", "no such column")+pg('Z', pgReadyBody)), ample, "down: logged in, query failed: no such column (42703)"}, query},
		"hangs at the query":     {conversation{replay(nil, welcome), short, "down: logged in, query failed: no answer within 150ms"}, query},
		"has rows without end":   {conversation{func(c net.Conn) { replayOnce(welcome)(c); endlessly(pgRow("f"))(c) }, ample, "up: logged in, query answered f"}, query},
		"hangs at the login":     {conversation{replay(nil, pgAuth(pgAuthMD5, "salt")), short, "down: no answer within 150ms"}, user},
		"ready without a login?": {conversation{replay(nil, pg('Z', pgReadyBody)), ample, "up: logged in"}, user},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			test.check.Type = Postgres
			test.test(t, test.check)
		})
	}
}

// replayOnce hears the client once for each answer, and is done then; without
// answers it closes when it has heard the first.
func replayOnce(answers ...string) func(net.Conn) {
	return func(c net.Conn) {
		buf := make([]byte, 4096)
		for i := range max(1, len(answers)) {
			_, _ = c.Read(buf)
			if i < len(answers) {
				_, _ = io.WriteString(c, answers[i])
			}
		}
		if len(answers) > 0 {
			_, _ = c.Read(buf) // the query
		}
	}
}

func TestPostgresSaysWhatIsDue(t *testing.T) {
	heard := make(chan string, 10)
	welcome := pgAuth(pgAuthOK, "") + pg('Z', pgReadyBody)
	address := serve(t, replay(heard, pgAuth(pgAuthMD5, "salt"), welcome, pgRow("1")+pg('Z', pgReadyBody)))
	verdictOf(t, address, Config{Type: Postgres, User: "lb", Database: "books", PasswordFile: secretFile(t), Query: "SELECT 1", Timeout: ample})
	var said []string
	for s := range heard {
		said = append(said, s)
	}
	want := []string{
		string(pgStartup("lb", "books")),
		pg('p', pgMD5("lb", "secret", []byte("salt"))+"\x00"),
		pg('Q', "SELECT 1\x00"),
		pg('X', ""),
	}
	if !slices.Equal(said, want) {
		t.Errorf("says\n%q, want\n%q", said, want)
	}
	if !strings.HasSuffix(want[0], "user\x00lb\x00database\x00books\x00application_name\x00applianctl\x00\x00") {
		t.Errorf("the first message is %q", want[0])
	}
}

// The example of RFC 7677, section 3, where the user is in the message as well.
func TestScram(t *testing.T) {
	cache := new(scramCache)
	for range 2 { // the second time from the cache
		x := newScramExchange("pencil", "rOprNGfwEbeRWgbNEkqO", cache)
		const serverFirst = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
		got, err := x.final([]byte(serverFirst))
		if err != nil || !strings.HasPrefix(string(got), "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=") {
			t.Errorf("%q, %v", got, err)
		}
		// The signatures with the user of the example in the message.
		about := "n=user,r=rOprNGfwEbeRWgbNEkqO," + serverFirst + ",c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
		x.serverSignature = hmacSHA256(hmacSHA256(cache.salted, "Server Key"), about)
		if err := x.verify([]byte("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=")); err != nil {
			t.Error(err)
		}
		if err := x.verify([]byte("v=7rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=")); err == nil {
			t.Error("another signature is taken")
		}
	}
}

func TestScramRefuses(t *testing.T) {
	for _, first := range []string{
		"", "r=nonceX", "r=nonceX,s=QQ==", "s=QQ==,r=nonceX,i=1", "r=nonceX,s=?,i=1", "r=nonceX,s=,i=1",
		"r=nonceX,s=QQ==,i=0", "r=nonceX,s=QQ==,i=x", "r=nonce,s=QQ==,i=1", "r=other,s=QQ==,i=1", "m=x,r=nonceX,s=QQ==,i=1",
		"r=nonceX,s=QQ==,i=2000000000",
	} {
		if got, err := newScramExchange("p", "nonce", new(scramCache)).final([]byte(first)); err == nil {
			t.Errorf("%q is answered with %q", first, got)
		}
	}
	if err := newScramExchange("p", "nonce", new(scramCache)).verify([]byte("v=")); err == nil {
		t.Error("a signature before its time is taken")
	}
}

// Whatever a server sends, a check ends, without a panic.
func FuzzPostgres(f *testing.F) {
	welcome := pgAuth(pgAuthOK, "") + pg('Z', pgReadyBody)
	f.Add([]byte(pgAuth(pgAuthMD5, "salt") + welcome + pgRow("1") + pg('Z', pgReadyBody)))
	f.Add([]byte(pgAuth(pgAuthSASL, scramMechanism+"\x00\x00") + pgAuth(pgAuthSASLContinue, "r=x,s=QQ==,i=1") + welcome))
	f.Add([]byte(pgErr("28P01", "no")))
	f.Fuzz(func(t *testing.T, script []byte) {
		for _, user := range []string{"", "lb"} {
			var said bytes.Buffer
			s := &postgresSession{
				w: &said, scram: new(scramCache),
				packets: postgresReader{r: bytes.NewReader(script), left: maxPostgresAnswer},
			}
			var err error
			if user == "" {
				_, err = s.ready()
			} else {
				_, err = s.check(Config{User: user, Query: "SELECT 1"}, "secret")
			}
			if said.Len() > 2*len(script)+1000 {
				t.Errorf("%d bytes are answered with %d", len(script), said.Len())
			}
			if err != nil && inWords(err, ample) == "" {
				t.Error("a failure without a word")
			}
		}
	})
}
