// Package guard removes what an appliance cannot remove any more because it was
// killed: the virtual addresses it held, and the other nodes' belief that it is
// active.
//
// A guard is a child process at the other end of a pipe. The appliance tells it
// what it holds; when the pipe breaks without a good-bye, the appliance is dead,
// and the guard takes the addresses off and sends the adverts of priority 0 that
// the appliance could not send. That takes a few milliseconds. Should the guard
// die as well, the addresses still go when their lease ends.
//
// parent.go is the appliance's side, child.go the guard's.
package guard
