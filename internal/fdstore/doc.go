// Package fdstore leaves open files with the service manager, so that the next process of
// the service finds them: systemd's file descriptor store. The manager keeps them over a
// restart, whatever the reason, and closes them when the service is stopped: so they
// have an owner at all times. See sd_notify(3) and sd_listen_fds(3); no library is needed for it, the
// protocol is some lines of text and a control message of a unix socket.
package fdstore
