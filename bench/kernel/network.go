package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// network is three namespaces and what joins them.
type network struct {
	made []string // namespaces
	// vip is the balancer's address for clients, server the one that it sends to.
	vip, server string
	// straight is the server's address without the balancer between, and forwarded
	// the one that the client reaches through it.
	straight, forwarded string
	// interfaces are the balancer's.
	interfaces []string
}

// build makes the network with two arms or with one.
func build(arms string) (*network, error) {
	n := &network{}
	for _, name := range []string{"client", "balancer", "server", "switch"} {
		if err := sh("ip netns add %s", name); err != nil {
			return n, err
		}
		n.made = append(n.made, name)
		if err := sh("ip -n %s link set lo up", name); err != nil {
			return n, err
		}
		// A new namespace has the machine's own, see contest.Prepare.
		if err := sh("ip netns exec %s sysctl -qw net.ipv4.tcp_congestion_control=reno", name); err != nil {
			return n, err
		}
	}
	commands := twoArms
	n.vip, n.server, n.straight, n.forwarded = "10.0.1.100", "10.0.2.2", "10.0.3.2", "10.0.2.2"
	n.interfaces = []string{"c0", "s0"}
	if arms == "one" {
		commands = oneArm
		n.vip, n.server, n.straight, n.forwarded = "10.0.0.100", "10.0.0.3", "10.0.0.3", "10.9.0.3"
		n.interfaces = []string{"eth0"}
	}
	for command := range strings.Lines(commands + settings) {
		if command = strings.TrimSpace(command); command == "" {
			continue
		}
		if err := sh("%s", command); err != nil {
			return n, err
		}
	}
	return n, nil
}

const settings = `
ip netns exec balancer sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.default.send_redirects=0 net.ipv4.conf.all.rp_filter=0
ip netns exec client sysctl -qw net.ipv4.ip_local_port_range=1024,65000
ip netns exec balancer sysctl -qw net.ipv4.ip_local_port_range=1024,65000
`

const twoArms = `
ip -n balancer link add c0 type veth peer name eth0 netns client
ip -n balancer link add s0 type veth peer name eth0 netns server
ip -n client link add eth1 type veth peer name eth1 netns server
ip -n balancer addr add 10.0.1.1/24 dev c0
ip -n balancer addr add 10.0.1.100/32 dev c0
ip -n balancer addr add 10.0.2.1/24 dev s0
ip -n client addr add 10.0.1.2/24 dev eth0
ip -n server addr add 10.0.2.2/24 dev eth0
ip -n client addr add 10.0.3.1/24 dev eth1
ip -n server addr add 10.0.3.2/24 dev eth1
ip -n balancer link set c0 up
ip -n balancer link set s0 up
ip -n client link set eth0 up
ip -n server link set eth0 up
ip -n client link set eth1 up
ip -n server link set eth1 up
ip -n client route add default via 10.0.1.1
ip -n server route add default via 10.0.2.1
`

// With one arm, forwarding needs addresses that client and server do not reach
// on the wire that they share.
const oneArm = `
ip -n switch link add lan type bridge
ip -n switch link set lan up
ip -n switch link add p1 type veth peer name eth0 netns client
ip -n switch link add p2 type veth peer name eth0 netns balancer
ip -n switch link add p3 type veth peer name eth0 netns server
ip -n switch link set p1 master lan up
ip -n switch link set p2 master lan up
ip -n switch link set p3 master lan up
ip -n client addr add 10.0.0.2/24 dev eth0
ip -n client addr add 10.8.0.2/32 dev eth0
ip -n balancer addr add 10.0.0.1/24 dev eth0
ip -n balancer addr add 10.0.0.100/32 dev eth0
ip -n server addr add 10.0.0.3/24 dev eth0
ip -n server addr add 10.9.0.3/32 dev eth0
ip -n client link set eth0 up
ip -n balancer link set eth0 up
ip -n server link set eth0 up
ip -n client route add 10.9.0.3 via 10.0.0.1 src 10.8.0.2
ip -n server route add 10.8.0.2 via 10.0.0.1 src 10.9.0.3
ip -n balancer route add 10.8.0.2 via 10.0.0.2
ip -n balancer route add 10.9.0.3 via 10.0.0.3
`

// remove removes the namespaces.
func (n *network) remove() {
	for _, name := range n.made {
		_ = sh("ip netns del %s", name)
	}
}

// sh runs a command without quoting; a comma stands for a space in an argument.
func sh(format string, args ...any) error {
	command := fmt.Sprintf(format, args...)
	fields := strings.Fields(command)
	for i := range fields {
		fields[i] = strings.ReplaceAll(fields[i], ",", " ")
	}
	out, err := exec.Command(fields[0], fields[1:]...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", command, err, out)
	}
	return nil
}

// within runs f on a thread that is in the namespace.
func within(namespace string, f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		ns, err := os.Open("/run/netns/" + namespace)
		if err == nil {
			err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET)
			ns.Close()
		}
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}
