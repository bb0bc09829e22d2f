// Package appliance builds all parts from one configuration, wires them
// together, runs them, reloads them and shuts them down. It is the only room
// that knows every engine.
//
// appliance.go is the life of the process, from start to stop. setup.go turns a
// configuration into running parts, at the start and at every reload alike:
// everything that can fail is built first, then all of it is put in force.
// wire.go carries health and faults to the elections. handover.go lets
// connections end before a virtual address goes. peerlink.go joins the elections
// to those of the other nodes. commands.go, moves.go and status.go answer the
// control socket. kernel.go has services carried by the kernel path, carried.go
// tells it which addresses are here, and flows.go tells the other nodes what it
// carries. watchers.go tells the elections what others do to
// their addresses; history.go writes down what happened.
package appliance
