// Package http1 reads and writes the wire format of HTTP/1.1 (RFC 9112): heads
// of requests and answers, bodies in chunks, and trailers.
//
// It works on bytes that its caller has in a buffer, does no input or output
// and, once the slices of a message have grown, allocates nothing: the strings
// of a parsed head are views of the buffer that it was parsed from, and good as
// long as that is not overwritten.
//
// It is strict. What two readers of the same bytes could understand in different
// ways is no message but an [Error]: a bare LF, a folded line, white space before
// a colon, two lengths, a length beside a transfer coding, control characters.
// The sender gets no second chance on that connection, for where the next message
// would begin is not known.
package http1
