package http1

import "strconv"

// AppendField appends a line of a head or a trailer to b.
func AppendField(b []byte, name, value string) []byte {
	b = append(b, name...)
	b = append(b, ": "...)
	b = append(b, value...)
	return append(b, "\r\n"...)
}

// AppendFields appends a line for each field.
func AppendFields(b []byte, fs []Field) []byte {
	for i := range fs {
		b = AppendField(b, fs[i].Name, fs[i].Value)
	}
	return b
}

// AppendRequestLine appends the first line of a request of HTTP/1.1.
func AppendRequestLine(b []byte, method, target string) []byte {
	b = append(b, method...)
	b = append(b, ' ')
	b = append(b, target...)
	return append(b, " HTTP/1.1\r\n"...)
}

// AppendStatusLine appends the first line of an answer of HTTP/1.1.
func AppendStatusLine(b []byte, status int, reason string) []byte {
	b = append(b, "HTTP/1.1 "...)
	b = strconv.AppendInt(b, int64(status), 10)
	b = append(b, ' ')
	b = append(b, reason...)
	return append(b, "\r\n"...)
}

// AppendChunkSize appends the line before the data of a chunk of n bytes. After
// the data comes CR LF.
func AppendChunkSize(b []byte, n int) []byte {
	b = strconv.AppendInt(b, int64(n), 16)
	return append(b, "\r\n"...)
}
