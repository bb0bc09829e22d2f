package control

import (
	"context"
	"net"
	"os/user"
	"strconv"

	"golang.org/x/sys/unix"
)

// callerKey is the key of a context's caller.
type callerKey struct{}

// WithCaller returns ctx with who gives the command, as Caller returns it.
func WithCaller(ctx context.Context, who string) context.Context {
	return context.WithValue(ctx, callerKey{}, who)
}

// Caller returns who gives the command that the context belongs to, in words: on
// the unix socket the user's name, or "uid 1000" where that has none. It is empty
// where nobody knows.
func Caller(ctx context.Context) string {
	who, _ := ctx.Value(callerKey{}).(string)
	return who
}

// withUser is http.Server.ConnContext: it asks the kernel who is at the other end.
func withUser(ctx context.Context, c net.Conn) context.Context {
	conn, ok := c.(*net.UnixConn)
	if !ok {
		return ctx
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return ctx
	}
	var cred *unix.Ucred
	var failed error
	if err := raw.Control(func(fd uintptr) {
		cred, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil || failed != nil {
		return ctx
	}
	return WithCaller(ctx, userName(int(cred.Uid)))
}

func userName(uid int) string {
	number := strconv.Itoa(uid)
	if u, err := user.LookupId(number); err == nil {
		return u.Username
	}
	return "uid " + number
}
