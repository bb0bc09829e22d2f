// Package integration holds the promises of the appliance, one file each, shown
// on real processes: the real binary on two nodes, real servers and clients, in
// network namespaces that the tests make and that go with them.
//
// main_test.go makes the sandbox and harness_test.go what the tests share. During
// every test a monitor asks the LAN who answers for the virtual address; a test
// fails when two nodes do for longer than it allows.
package integration
