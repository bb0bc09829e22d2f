// Package vrrp elects, among the nodes of a LAN, the one that holds a set of
// virtual addresses: VRRP version 3 (RFC 9568) over IPv4 and IPv6, or version 2
// (RFC 3768, with the password of RFC 2338) over IPv4, by multicast or to the other
// nodes one by one. A virtual router speaks one of these and refuses the others.
//
// The way of an advert through the package:
//
//	Transport -> reader -> Parse -> mailbox -> Machine.Step -> actions -> Transport, Addresses, Traffic
//
// Machine (machine.go) is the election alone. It is pure: an event and the time
// go in, a list of actions comes out, and Deadline says when it wants to be
// woken. It reads no clock, opens nothing and starts nothing, so a whole
// election of two nodes is a test that takes no time. What it does as a backup
// is in backup.go, as the active router in active.go, and how the addresses
// are given away and taken back by command in handover.go; when it preempts, and
// what the owner of the addresses does, in preempt.go. States change only in the
// becomeX functions.
//
// A group (group.go) is several Machines of one node that move together; it is as
// pure as they are. Groups (groups.go) is that for Routers: it has the lock under
// which they step.
//
// Router (router.go) is a Machine with its mailbox, its timer and the outside
// world. One goroutine owns the Machine, a second one keeps a Transport open
// (port.go) and reads adverts (reader.go), a third one works on the addresses
// (worker.go), because a busy kernel must not hold up an advert. While adverts
// cannot be received or sent the router has the fault AdvertsFault: deaf or mute,
// it must not be active.
//
// Advert (packet.go, for version 2 packet_v2.go and authentication.go) is the
// message. The timers by which the versions differ are in timers.go. Whatever is refused has a name (Refusal,
// in refusal.go) and changes nothing: no timer, no state.
//
// Seven things go beyond the RFC:
//
//   - Health is apart from preemption. Priority may be lowered by named
//     demotions, and a backup that has been healthier than the active router
//     for Config.Settle takes over even with Preempt off. Two nodes that see
//     the same dead servers are equally unhealthy, so nothing moves.
//   - The virtual addresses are a lease. The active router renews it every
//     RenewInterval and the kernel drops the addresses after Lease, so they do
//     not outlive a process that was killed or stopped.
//   - An active router that was held up for longer than Active_Down_Interval
//     sends nothing for one interval and gives way to whoever it hears: another
//     one has probably taken over meanwhile.
//   - The link to the other node, where there is one, is a second witness
//     (evidence.go, rival.go). While it says that the active router lives, a silence of
//     adverts is an alarm and no reason to take over; when it says that the
//     process is dead, nobody waits for a silence. A planned switch goes over it
//     (takeover.go): the new router has announced before the old one lets go.
//   - A backup that hears nobody any more asks the hosts of Config.Reach first, and
//     stays what it is when one of them has gone at the same time (isolated.go).
//   - A demoted active router hands the addresses to a keepalived, whose backups are
//     silent, by a trial (lend.go).
//   - A failover by command drains connections first and holds: the node that
//     yielded does not take over from a live active router until failback.
package vrrp
