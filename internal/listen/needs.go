package listen

import "golang.org/x/sys/unix"

// ClientsFirst is a Handler whose clients always speak first, if it says so. Their
// connections are accepted when the first bytes are there (TCP_DEFER_ACCEPT), so that
// neither the listener nor the handler is woken in vain. A client that says nothing
// is accepted after a second, and one that leaves without a word at once.
type ClientsFirst interface {
	ClientsFirst() bool
}

// needs are what a handler wants of its listener's socket.
type needs struct {
	alive        KeepAlive
	clientsFirst bool
}

func needsOf(h Handler) needs {
	n := needs{alive: DefaultKeepAlive}
	if k, ok := h.(KeepAliver); ok {
		n.alive = k.KeepAlive()
	}
	if c, ok := h.(ClientsFirst); ok {
		n.clientsFirst = c.ClientsFirst()
	}
	return n
}

// options are those of the socket. It has them also when it does not need them any
// more, to undo what another handler has needed.
func (n needs) options() []Option {
	deferred := 0
	if n.clientsFirst {
		// The kernel counts by its repetitions of the SYN-ACK, of which the first
		// comes after a second.
		deferred = 1
	}
	return append(n.alive.Options(), Option{"TCP_DEFER_ACCEPT", unix.SOL_TCP, unix.TCP_DEFER_ACCEPT, deferred})
}
