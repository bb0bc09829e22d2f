package lab

import (
	"errors"
	"net"
	"os"
)

// ServeDoor is what Run serves the door with.
var ServeDoor = serveDoor

// Intrude asks for a command at the door of another user's laboratory.
func Intrude(door, host string, args []string) error {
	c, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Net: "unixpacket", Name: door})
	if err != nil {
		return err
	}
	defer c.Close()
	// It may be refused before it has asked, but then it is told why all the same.
	_ = sendRequest(c, doorRequest{Host: host, Args: args}, os.Stdin, os.Stdout, os.Stderr)
	_, err = readReply(c)
	return err
}

// Sum is what Load.Report reckons with.
var Sum = sum

// Flawless is how the story judges a step that promises no failures: its error
// becomes that of Run.
func Flawless(what string, r Report) error {
	s := &story{}
	s.flawless(what, r)
	return errors.Join(s.fault...)
}
