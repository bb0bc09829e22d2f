// Package health judges servers: it probes each one at its own rhythm and
// tells which of them are up.
//
// The way of a verdict:
//
//	Checker (one goroutine) -> batch of exchanges, or probe -> outcome
//	   -> verdict (rise and fall) -> notify, on a change of state only
//
// A check that asks one question is an exchange: what to say, and a pure judge of
// what comes back. Those that are due together are carried out by one goroutine,
// their batch. Every other check is a probe, which has a goroutine and a deadline.
//
// checker.go holds the Checker, which owns the table of targets; schedule.go
// the order in which they are due; state.go the pure rise-and-fall state.
// config.go says what a check is, validate.go what it cannot be.
//
// exchange.go says what an exchange is, batch.go carries them out, by the system
// calls of syscall.go; probes connect by socket.go, limit.go bounds and breaks off
// what they wait for. probe.go prepares the way to check of each type, which is in
// the file of its name. match.go has what answers are compared with, lines.go what protocols of
// lines have in common, tls.go the handshakes and the warnings of certificates.
// mysql has its packets in mysql_packet.go and mysql_greeting.go, its polite way
// out in mysql_leave.go and its driver in mysql_login.go and mysql_guard.go;
// postgres is postgres_message.go, postgres_login.go and scram.go; icmp_echo.go
// has the messages of icmp. reason.go turns errors into words for a human.
//
// What a server sends is never trusted: packets, headers and bodies are
// bounded, and a malformed answer is a failed check with a reason.
package health
