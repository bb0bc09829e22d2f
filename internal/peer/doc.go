// Package peer is the authenticated link between the nodes of a pair: a second
// heartbeat beside the adverts, news of what each node is and how healthy, and
// calls from one node to the other.
//
// A Mesh is one node's end of its links. It listens on the node's own address
// and dials every other node; of two connections that meet, both ends keep the
// same one (neighbour.go). The way of a message:
//
//	Report, Call -> session (session.go) -> frame (frame.go) -> TLS 1.3 (identity.go) -> the other node's Handler
//
// Who may speak: both ends derive one Ed25519 key from the shared secret
// (secret.go), prove in the TLS handshake that they have it, and accept no other.
// The names come after that, in a greeting (hello.go): a node that goes by this
// node's own name, or by one that the file does not have, is refused by name. A
// stranger costs little: only the addresses of the other nodes are listened to,
// a few handshakes at a time, each for a moment.
//
// What the end of a link means is told apart, because the election acts on it:
// a node that says goodbye has stopped in order; one whose host refuses the
// connection that follows the end has died, and its host lives; one that is
// merely silent is lost, and nobody can tell whether it is the node or the
// network (state.go).
//
// Room for more: a frame is a kind and bytes, and a kind that a node does not
// know is skipped. What is too much for JSON goes by Send, as whoever sends it
// has written it. No frame is larger than maxFrame, so a heartbeat waits behind
// few.
package peer
