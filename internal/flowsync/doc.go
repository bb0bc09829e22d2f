// Package flowsync tells the other node which connections the kernel path of
// this one carries, so that it can go on with them the moment it is active.
//
// Each end of a link has a Machine, pure as the one of the election: events and
// the time in, intentions out. Whoever runs it sends frames by the peer link,
// which authenticates them, reads flows from the kernel and puts flows into it.
//
//	the kernel tells of a flow -> Changed -> batch -> Send -> the other node's Machine -> Install
//
// The receiver begins. With a link it asks for everything by a number of its own
// choice; what follows, a stream, bears that number and counts its frames. First
// come all flows there are, and the end of them: from then on the copy is
// complete, and what it does not have has ended. Changes are sent in between and after. What is of another stream, or
// was here already, is refused, and so is what follows a frame that is missing
// until that has come. So a frame that is lost, repeated or late costs time and no more.
//
// The sender does not wait for a batch to fill: one leaves as soon as there is
// something to say and nothing is under way, and what happens until that has been
// acknowledged is the next one. So few changes have little delay and many of them
// few frames. At most Window frames are under way, for heartbeats use the same
// link; one that is not acknowledged is sent again. Who falls behind too far forgets what is waiting and tells everything
// anew.
//
// The kernel path tells flows that are in use again from time to time, so that
// they do not age on the other node, and what was lost before is made good.
//
// A flow names its server by address: the nodes may have their servers in another
// order, or not the same ones. What the receiver does with a flow to a server
// that it does not have is its own business.
package flowsync
