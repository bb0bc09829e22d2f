// Package lab is a laboratory for pairs of load balancers: hosts, switches and
// cables made of Linux namespaces, on any machine, without installing a thing
// and without root where the kernel allows it. `applianctl lab` tells its story
// with it, and the tests under integration/ prove the promises with it.
//
// From the outside in:
//
//   - Sandbox puts the whole program into namespaces of its own. Whatever runs
//     inside ends with it, however it ends; nothing stays behind.
//   - Host is one machine in the sandbox: a host name, a network and a /run of
//     its own. Commands started on it and sockets opened on it belong to it.
//   - Pair is the network that everything is about: lb01 and lb02, a client,
//     servers, and the two LANs between them, with a monitor and a capture of
//     what really happens on the wire. Node is one of the two.
//   - Monitor asks all the time who answers for the virtual address; Capture
//     notes adverts and gratuitous ARP; Load is a stream of requests; Server
//     answers them. They report what they saw and judge nothing.
//   - Run is the story; Exec and the door behind it are the way into a running
//     laboratory from another terminal.
//
// The addresses are always the same, so that files and figures read alike:
//
//	lan 192.168.15.0/24   lb01 .11   lb02 .12   client .100   virtual address .3
//	lan fd15::/64         the same with ::b, ::c and ::64, where IPv6 is watched
//	srv 172.16.1.0/24     lb01 .11   lb02 .12   web1 .51   web2 .52   ...
//
// A test package uses it like this:
//
//	func TestMain(m *testing.M) {
//		inside, code, err := lab.Sandbox()
//		if err != nil {
//			fmt.Fprintln(os.Stderr, err)
//			os.Exit(1)
//		}
//		if !inside {
//			os.Exit(code)
//		}
//		os.Exit(m.Run())
//	}
package lab
