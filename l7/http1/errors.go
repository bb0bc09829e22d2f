package http1

// Error says why bytes are no message. All that there are exist once, so that
// refusing costs nothing.
type Error struct {
	// Status is what a client whose request it is gets as an answer.
	Status int
	// Reason names the mistake, in lower case.
	Reason string
}

func (e *Error) Error() string { return e.Reason }

var (
	errLine        = &Error{400, "a line does not end with CR LF"}
	errRequestLine = &Error{400, "the first line is not that of a request"}
	errStatusLine  = &Error{502, "the first line is not that of an answer"}
	errMethod      = &Error{400, "the method is no token"}
	errTarget      = &Error{400, "the target has a character that it may not have"}
	errVersion     = &Error{505, "the version is not HTTP/1"}
	errFolded      = &Error{400, "a line is folded"}
	errName        = &Error{400, "a field's name is no token"}
	errNoColon     = &Error{400, "a field has no colon"}
	errValue       = &Error{400, "a field's value has a control character"}
	errTooMany     = &Error{431, "there are too many fields"}
	errHosts       = &Error{400, "there are two Host fields"}
	errNoHost      = &Error{400, "there is no Host field"}
	errLength      = &Error{400, "the Content-Length is no number"}
	errLengths     = &Error{400, "there are two Content-Length fields"}
	errCodings     = &Error{400, "Transfer-Encoding is not chunked alone"}
	errCoding      = &Error{501, "the transfer coding is unknown"}
	errBoth        = &Error{400, "there are both Content-Length and Transfer-Encoding"}
	errOldCoding   = &Error{400, "Transfer-Encoding is not part of HTTP/1.0"}
	errLikeness    = &Error{400, "a field's name passes for that of another one"}
	errChunkSize   = &Error{400, "a chunk's size is no hexadecimal number"}
	errChunkExt    = &Error{400, "a chunk's extensions are malformed or too long"}
	errChunkEnd    = &Error{400, "a chunk does not end with CR LF"}
	errTrailer     = &Error{400, "the trailers are too long"}
)
