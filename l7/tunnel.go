package l7

import (
	"context"
	"io"
	"time"
)

// tunnel carries bytes between client and server until both directions have
// ended, either side fails, or ctx ends; then it closes both. The end of one
// direction is passed on, and the other one may go on for linger. sent and
// received are told how many bytes went to the server and to the client.
func tunnel(ctx context.Context, client, server io.ReadWriteCloser, linger time.Duration, sent, received func(n int)) {
	closeBoth := func() {
		client.Close()
		server.Close()
	}
	defer closeBoth()
	stop := context.AfterFunc(ctx, closeBoth)
	defer stop()

	ended := make(chan bool, 2) // a direction: in good order?
	go func() { ended <- carry(server, client, sent) }()
	go func() { ended <- carry(client, server, received) }()
	if <-ended {
		t := time.AfterFunc(linger, closeBoth)
		defer t.Stop()
	} else {
		closeBoth()
	}
	<-ended
}

// tunnelBuffer is small because an upgraded connection holds two of them all its
// life, most of which it is idle.
const tunnelBuffer = 4 << 10

// carry copies from src to dst until src ends and tells dst so. It reports
// whether that could be done.
func carry(dst io.Writer, src io.Reader, count func(n int)) bool {
	buf := make([]byte, tunnelBuffer)
	for {
		n, err := src.Read(buf)
		if n > 0 {
			if _, err := dst.Write(buf[:n]); err != nil {
				return false
			}
			count(n)
		}
		if err == io.EOF {
			half, ok := dst.(interface{ CloseWrite() error })
			return ok && half.CloseWrite() == nil
		}
		if err != nil {
			return false
		}
	}
}
