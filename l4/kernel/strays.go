package kernel

import "time"

// straysFor is for how long strays are taken. Most of them show themselves within a
// second, those of clients that say little, later.
const straysFor = time.Minute

// AddressCame is to be called when an address has come here. What this node knows of
// sequence numbers is of before then, and the connections have gone on elsewhere.
func (p *Path) AddressCame() {
	now := tick()
	p.setSettings(func(s *programSettings) { s.Moved = now })
}

// TakeStrays is to be called when an address has come here. For a minute from now on,
// a segment of a client that belongs to no flow begins one in the middle of its
// connection, with the server that is chosen for that client, and the client's own
// port. That is where the other node sent it, if the servers were the same there and
// the port was free. It makes up for connections that the other node could not tell,
// because it died, or because they were in their handshake. If the server does not
// know the connection it says so by a reset, as the stack of this node would.
//
// Such a flow is half-open until the server has answered with something else than a
// SYN-ACK. Segments of servers that
// belong to no flow are dropped meanwhile, and sent again by them, instead of being
// reset: the client's next segment may tell what they belong to.
func (p *Path) TakeStrays() {
	until := tick() + ticks(straysFor)
	p.setSettings(func(s *programSettings) { s.Strays = until })
}

// LeaveStrays ends what TakeStrays began: the address has come here in peace, and
// who gave it takes what belongs to no flow here.
func (p *Path) LeaveStrays() {
	p.setSettings(func(s *programSettings) { s.Strays = 0 })
}
