// The kernel path: what happens to a packet at the ingress of an interface.
// docs/kernel.md tells it in words, maps.h what is in the maps. It is written for
// Linux 5.12 and clang 14.
//
// The order of things matters in one respect: a helper that may change the packet
// (bpf_skb_pull_data, bpf_l4_csum_replace) makes all pointers into it invalid. So
// what is needed is parsed into a struct packet first, and written last.

#include "numbers.h"

// How far the first acknowledgement of a client may be from the start of what the
// server sends. It is off by more than 0 only with data in the SYN (RFC 7413).
#define FIRST_ACK_SPAN 65536

INLINE void add_half_open(__s64 n)
{
	__u32 zero = 0;
	__s64 *h = bpf_map_lookup_elem(&half_open, &zero);
	if (h)
		__sync_fetch_and_add(h, n);
}

NOINLINE int write_change(struct change *c, const struct key *k, const struct flow *f, __u32 kind)
{
	c->key = *k;
	c->kind = kind;
	c->server = f->server;
	c->flags = f->flags;
	c->port = f->mode == MODE_NAT ? f->sport : k->sport;
	c->mode = f->mode;
	c->pad = 0;
	return 0;
}

// tell has the Go side know of a change. k and f are those of the direction from
// the client.
NOINLINE int tell(const struct key *k, const struct flow *f, __u32 kind)
{
	__u32 zero = 0;
	struct settings *s = bpf_map_lookup_elem(&configuration, &zero);
	if (!s || !s->changes)
		return 0;
	struct change *c = bpf_ringbuf_reserve(&changes, sizeof(*c), 0);
	if (!c) {
		COUNT_PATH(changes_lost);
		return 0;
	}
	write_change(c, k, f, kind);
	bpf_ringbuf_submit(c, 0);
	return 0;
}

// establish notes that both sides have proved that they are there.
INLINE void establish(const struct key *k, struct flow *f)
{
	if (__sync_val_compare_and_swap(&f->phase, PHASE_NEW, PHASE_ESTABLISHED) != PHASE_NEW)
		return;
	add_half_open(-1);
	COUNT_SERVER(f->server, established);
	tell(k, f, CHANGE_ESTABLISHED);
}

// finish notes that a flow has ended and returns the phase in which that was.
INLINE __u32 finish(const struct key *k, struct flow *f)
{
	__u32 phase = f->phase;
	if (phase == PHASE_CLOSED || __sync_val_compare_and_swap(&f->phase, phase, PHASE_CLOSED) != phase)
		return PHASE_CLOSED;
	if (phase == PHASE_NEW) {
		add_half_open(-1);
	} else {
		COUNT_SERVER(f->server, ended);
		tell(k, f, CHANGE_ENDED);
	}
	return phase;
}

// forget removes both directions of a flow; k and f are one of them.
NOINLINE int forget(const struct key *k, struct flow *f)
{
	struct key other;
	other_key(&other, f, k->proto);
	if (!f->reverse) {
		finish(k, f);
	} else {
		struct flow *o = bpf_map_lookup_elem(&flows, &other);
		if (o)
			finish(&other, o);
	}
	bpf_map_delete_elem(&flows, &other);
	bpf_map_delete_elem(&flows, k);
	return 0;
}

// adopt notes that packets of a flow that was the other node's come here.
NOINLINE int adopt(const struct key *k, struct flow *f)
{
	struct key other;
	other_key(&other, f, k->proto);
	struct flow *o = bpf_map_lookup_elem(&flows, &other);
	__sync_fetch_and_and(&f->flags, ~FLAG_INSTALLED);
	if (!o)
		return 0;
	struct flow *first = f->reverse ? o : f;
	__u32 before = __sync_fetch_and_and(&o->flags, ~FLAG_INSTALLED);
	if (before & FLAG_INSTALLED && first->phase == PHASE_ESTABLISHED)
		COUNT_SERVER(first->server, established);
	return 0;
}

// track_tcp follows the state of a connection by a packet that may change it.
NOINLINE int track_tcp(const struct packet *p, struct flow *f)
{
	struct key other;
	other_key(&other, f, IPPROTO_TCP);
	struct flow *o = bpf_map_lookup_elem(&flows, &other);
	if (!o) { // half a flow is none
		bpf_map_delete_elem(&flows, &p->key);
		return LEAVE;
	}
	const struct key *k = f->reverse ? &other : &p->key;
	struct flow *first = f->reverse ? o : f;
	__u32 rst = f->reverse ? FLAG_SERVER_RST : FLAG_CLIENT_RST;
	__u32 fin = f->reverse ? FLAG_SERVER_FIN : FLAG_CLIENT_FIN;

	if (p->flags & RST) {
		if (first->phase == PHASE_ESTABLISHED && !credible(p, f, o))
			return CARRY;
		__sync_fetch_and_or(&f->flags, rst);
		__sync_fetch_and_or(&first->flags, rst);
		__u32 phase = finish(k, first);
		if (p->seq - f->next - 1 < GAP)
			f->next = p->seq;
		if (phase == PHASE_NEW && f->reverse)
			COUNT_SERVER(f->server, refused);
		else if (phase == PHASE_ESTABLISHED)
			COUNT_SERVER(f->server, broken);
		return CARRY;
	}
	if (f->flags & rst && !(p->flags & SYN) && news(p, f)) {
		// Who has really sent a reset says nothing new afterwards: that one was
		// somebody else's, and the connection lives.
		__sync_fetch_and_and(&f->flags, ~rst);
		__u32 before = __sync_fetch_and_and(&first->flags, ~rst);
		__u32 ends = FLAG_CLIENT_FIN | FLAG_SERVER_FIN;
		if ((before & ends) != ends &&
		    __sync_val_compare_and_swap(&first->phase, PHASE_CLOSED, PHASE_ESTABLISHED) == PHASE_CLOSED) {
			COUNT_SERVER(f->server, established);
			tell(k, first, CHANGE_ESTABLISHED);
		}
	}
	if (f->reverse) {
		if (f->flags & FLAG_STRAY) {
			// It knows the connection, or else it would have sent a reset; or
			// it begins one, and anybody may have asked for that.
			__sync_fetch_and_and(&f->flags, ~FLAG_STRAY);
			if (!(p->flags & SYN))
				establish(k, first);
		}
		if ((p->flags & (SYN | ACK)) == (SYN | ACK) && first->phase == PHASE_NEW) {
			know_numbers(f, end_of(p), p->ack);
			first->acked = p->seq + 1; // what it has to be at least
			__sync_fetch_and_or(&first->flags, FLAG_SYNACK);
		} else if ((p->flags & (SYN | ACK)) == (SYN | ACK) && first->phase == PHASE_ESTABLISHED) {
			// The server knows of no connection there any more and begins another
			// one. This one ended while its packets went by the other node, which
			// has to hear of the new one.
			know_numbers(f, end_of(p), p->ack);
			know_numbers(o, p->ack, p->seq + 1);
			__sync_fetch_and_and(&first->flags, ~(FLAG_CLIENT_FIN | FLAG_SERVER_FIN));
			tell(k, first, CHANGE_ESTABLISHED);
		}
	} else if (first->phase == PHASE_NEW && (p->flags & (SYN | ACK)) == ACK) {
		// Only who has got the server's SYN knows what to acknowledge. With direct
		// return it is not seen here, and any acknowledgement has to do.
		if (first->mode == MODE_DIRECT ||
		    (first->flags & FLAG_SYNACK && p->ack - first->acked < FIRST_ACK_SPAN))
			establish(k, first);
	}
	if (p->flags & SYN) {
		if (!f->reverse && first->phase == PHASE_NEW)
			f->next = end_of(p);
		return CARRY;
	}
	if (p->flags & FIN && first->phase == PHASE_ESTABLISHED && credible(p, f, o)) {
		__u32 before = __sync_fetch_and_or(&first->flags, fin);
		if (!(before & fin)) {
			if ((before | fin) & FLAG_CLIENT_FIN && (before | fin) & FLAG_SERVER_FIN)
				finish(k, first);
			else
				tell(k, first, CHANGE_REFRESHED);
		}
	}
	return CARRY;
}

// track_udp follows what counts as the state of a flow of datagrams.
NOINLINE int track_udp(const struct packet *p, struct flow *f)
{
	struct key other;
	other_key(&other, f, IPPROTO_UDP);
	struct flow *o = bpf_map_lookup_elem(&flows, &other);
	if (!o) {
		bpf_map_delete_elem(&flows, &p->key);
		return LEAVE;
	}
	if (!f->reverse) { // with direct return, a later datagram is all that is seen
		establish(&p->key, f);
		return CARRY;
	}
	f->phase = PHASE_ESTABLISHED;
	establish(&other, o);
	if (f->responses && __sync_fetch_and_add(&f->responses, -1) == 1)
		finish(&other, o);
	return CARRY;
}

// follow says what to do with a packet of a flow, and follows the flow's state.
INLINE int follow(const struct packet *p, struct flow *f, __u32 now)
{
	struct server *s = bpf_map_lookup_elem(&servers, &f->server);
	if (!s)
		return LEAVE;
	int from_client = !f->reverse;
	int state = s->state;

	if (unlikely(f->flags & FLAG_INSTALLED))
		adopt(&p->key, f);
	if (p->key.proto == IPPROTO_TCP) {
		int syn = (p->flags & (SYN | ACK | RST | FIN)) == SYN;
		if (unlikely(s->reset)) {
			forget(&p->key, f);
			return syn && from_client ? BEGIN : LEAVE;
		}
		if (syn && from_client &&
		    (f->phase == PHASE_CLOSED || (f->phase == PHASE_NEW && state != SERVER_READY))) {
			forget(&p->key, f);
			return BEGIN;
		}
		if (unlikely(f->route_at != now)) { // once in each tick
			doubt(f);
			if (!(p->flags & (SYN | RST)))
				catch_up(p, f);
		}
		int what = CARRY;
		if (p->flags & (SYN | FIN | RST) || (from_client && f->phase == PHASE_NEW) ||
		    f->flags & (from_client ? FLAG_CLIENT_RST : FLAG_SERVER_RST | FLAG_STRAY))
			what = track_tcp(p, f);
		if (what == CARRY && !(p->flags & (SYN | RST)) && (f->reverse || f->phase != PHASE_NEW))
			follow_numbers(p, f);
		return what;
	}
	if (from_client) {
		if (f->phase == PHASE_CLOSED || state == SERVER_MAINT || state == SERVER_DOWN) {
			forget(&p->key, f);
			return BEGIN;
		}
		if (f->mode == MODE_DIRECT && f->phase == PHASE_NEW && f->seen != now)
			return track_udp(p, f);
		return CARRY;
	}
	if (f->phase == PHASE_NEW || f->responses)
		return track_udp(p, f);
	return CARRY;
}

// route finds the way out for a flow and keeps it until the next tick. It
// returns 0, or -1 if there is none.
NOINLINE int route(struct __sk_buff *skb, const struct key *k, struct flow *f, __u32 now)
{
	struct bpf_fib_lookup fib = {};
	int v6 = k->saddr[2] != BE32(0xffff) || k->saddr[0] || k->saddr[1];
	struct server *s = bpf_map_lookup_elem(&servers, &f->server);
	if (!s)
		return -1;
	const __be32 *to = f->mode == MODE_DIRECT && !f->reverse ? s->addr : f->daddr;
	fib.family = v6 ? AF_INET6 : AF_INET;
	fib.l4_protocol = k->proto;
	fib.sport = f->sport;
	fib.dport = f->dport;
	fib.ifindex = skb->ingress_ifindex;
	if (v6) {
		copy_addr(fib.src, f->saddr);
		copy_addr(fib.dst, to);
	} else {
		fib.src[0] = f->saddr[3];
		fib.dst[0] = to[3];
	}
	long r = bpf_fib_lookup(skb, &fib, sizeof(fib), 0);
	switch (r) {
	case BPF_FIB_LKUP_RET_SUCCESS:
	case BPF_FIB_LKUP_RET_FRAG_NEEDED:
		__builtin_memcpy(f->dmac, fib.dmac, 6);
		__builtin_memcpy(f->smac, fib.smac, 6);
		f->ifindex = fib.ifindex;
		f->slow = 0;
		break;
	case BPF_FIB_LKUP_RET_NO_NEIGH:
		f->ifindex = fib.ifindex;
		f->slow = 1;
		break;
	case BPF_FIB_LKUP_RET_FWD_DISABLED:
		f->ifindex = f->reverse ? f->hint : s->ifindex;
		f->slow = 1;
		break;
	default:
		return -1;
	}
	__u32 mtu = 0;
	bpf_check_mtu(skb, f->ifindex, &mtu, 0, 0);
	if (!f->ifindex || !mtu) // or an interface that is gone
		return -1;
	f->mtu = mtu;
	f->route_at = now;
	return 0;
}

INLINE __u64 mix(__u64 h, __u64 v)
{
	h = (h ^ v) * 0x9e3779b97f4a7c15ULL;
	return h ^ (h >> 32);
}

// choose returns the server for a new flow, or 0. Both nodes choose the same.
INLINE __u32 choose(const struct key *k, const struct service *s)
{
	void *table = bpf_map_lookup_elem(&tables, &s->id);
	if (!table)
		return 0;
	__u64 h = mix(0x6170706c69616e63ULL, (__u64)k->saddr[0] << 32 | k->saddr[1]);
	h = mix(h, (__u64)k->saddr[2] << 32 | k->saddr[3]);
	if (!s->by_client)
		h = mix(h, k->sport);
	h = mix(h, (__u64)k->dport << 8 | k->proto);
	__u32 i = (__u32)(h >> 16) % TABLE_SIZE;
	__u32 *server = bpf_map_lookup_elem(table, &i);
	return server ? *server : 0;
}

// martian reports whether an address cannot be that of a client (RFC 1812 section
// 5.3.7, RFC 4291 section 2): the stack drops what comes from there.
INLINE int martian(const __be32 *addr)
{
	if (addr[0] || addr[1])
		return (addr[0] & BE32(0xff000000)) == BE32(0xff000000);
	if (addr[2] != BE32(0xffff)) // ::, ::1, and what is left of old mappings
		return !addr[2];
	__u32 first = BE32(addr[3]) >> 24;
	return first == 0 || first == 127 || first >= 224;
}

// strays_now reports whether connections are taken of which no flow is known: for
// some time after the address has come here. The node that had it may have died
// before it told of its latest ones, and those that were in their handshake it never
// tells.
INLINE int strays_now(const struct settings *set, __u32 now)
{
	return (int)(set->strays - now) > 0;
}

// of_a_socket reports whether a segment is of a connection that the stack has, or
// is to make because it has sent a cookie.
NOINLINE int of_a_socket(struct __sk_buff *skb, const struct packet *p)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct bpf_sock_tuple tuple = {};
	struct bpf_sock *sk;
	struct tcphdr *tcp;
	__u32 header;

	if (p->v6) {
		copy_addr(tuple.ipv6.saddr, p->key.saddr);
		copy_addr(tuple.ipv6.daddr, p->key.daddr);
		tuple.ipv6.sport = p->key.sport;
		tuple.ipv6.dport = p->key.dport;
		sk = bpf_skc_lookup_tcp(skb, &tuple, sizeof(tuple.ipv6), BPF_F_CURRENT_NETNS, 0);
		header = IP6_LEN;
		tcp = data + ETH_LEN + IP6_LEN;
	} else {
		tuple.ipv4.saddr = p->key.saddr[3];
		tuple.ipv4.daddr = p->key.daddr[3];
		tuple.ipv4.sport = p->key.sport;
		tuple.ipv4.dport = p->key.dport;
		sk = bpf_skc_lookup_tcp(skb, &tuple, sizeof(tuple.ipv4), BPF_F_CURRENT_NETNS, 0);
		header = IP_LEN;
		tcp = data + ETH_LEN + IP_LEN;
	}
	if (!sk)
		return 0;
	int its = sk->state != BPF_TCP_LISTEN;
	if (!its && (void *)(tcp + 1) <= end)
		its = bpf_tcp_check_syncookie(sk, data + ETH_LEN, header, tcp, sizeof(*tcp)) == 0;
	bpf_sk_release(sk);
	return its;
}

// shut reports whether no flow begins any more.
INLINE int shut(void)
{
	__u32 zero = 0, *d = bpf_map_lookup_elem(&door, &zero);
	return d && *d;
}

// For how many ticks the program goes on with nobody to look at the flows.
#define TENDED 60

// untended reports whether the process is gone that looks at the flows, and none has
// come in its place. Then the program may be attached still, by whoever keeps open what
// it has left, but all is left to the stack.
NOINLINE int untended(__u32 now)
{
	__u32 zero = 0;
	struct settings *set = bpf_map_lookup_elem(&configuration, &zero);
	return !set || (int)(now - set->tended) > TENDED;
}

// flowless is for a packet that belongs to no flow and begins none. After the death of
// the process, what would begin one is dropped, and comes again at the node that takes
// over: here nobody could tell that node of it. After the address has come, a server's
// segment, about a connection that may become a stray with the client's next one, is
// dropped, and sent again: the stack would reset it.
NOINLINE int flowless(struct __sk_buff *skb, const struct packet *p, __u32 now)
{
	__u32 zero = 0;
	if (unlikely(shut())) {
		if (untended(now))
			return TC_ACT_UNSPEC;
		struct key k = {};
		copy_addr(k.daddr, p->key.daddr);
		k.dport = p->key.dport;
		k.proto = p->key.proto;
		return bpf_map_lookup_elem(&services, &k) ? TC_ACT_SHOT : TC_ACT_UNSPEC;
	}
	struct settings *set = bpf_map_lookup_elem(&configuration, &zero);
	if (p->key.proto != IPPROTO_TCP || !set || !strays_now(set, now) || !(p->flags & ACK) || p->flags & RST)
		return TC_ACT_UNSPEC;
	struct key k = {};
	copy_addr(k.saddr, p->key.saddr);
	k.sport = p->key.sport;
	k.proto = p->key.proto;
	if (!bpf_map_lookup_elem(&backends, &k) || !bpf_map_lookup_elem(&addresses, p->key.daddr) || of_a_socket(skb, p))
		return TC_ACT_UNSPEC;
	COUNT_PATH(early);
	return TC_ACT_SHOT;
}

// begin makes a flow for the first packet of a connection, or one of a stray, or
// returns 0 if the packet is no such, or the stack has to take it.
NOINLINE struct flow *begin(struct __sk_buff *skb, const struct packet *p, __u32 now)
{
	__u32 zero = 0;
	struct settings *set = bpf_map_lookup_elem(&configuration, &zero);
	__s64 *half = bpf_map_lookup_elem(&half_open, &zero);
	if (!set || !half || shut() || untended(now))
		return 0;
	int stray = p->key.proto == IPPROTO_TCP && (p->flags & (SYN | ACK | RST | FIN)) != SYN;
	if (stray && (!strays_now(set, now) || (p->flags & (SYN | ACK | RST)) != ACK))
		return 0;
	struct key k = {};
	copy_addr(k.daddr, p->key.daddr);
	k.dport = p->key.dport;
	k.proto = p->key.proto;
	struct service *s = bpf_map_lookup_elem(&services, &k);
	if (!s || p->ttl <= 1 || martian(p->key.saddr) || bpf_map_lookup_elem(&addresses, p->key.saddr))
		return 0;
	if (stray && of_a_socket(skb, p))
		return 0;
	if (*half >= set->max_half_open) {
		COUNT_SERVICE(s->id, half_open);
		return 0;
	}
	__u32 id = choose(&p->key, s);
	struct server *srv = id ? bpf_map_lookup_elem(&servers, &id) : 0;
	if (!srv) {
		COUNT_SERVICE(s->id, no_server);
		return 0;
	}

	struct making *m = bpf_map_lookup_elem(&makings, &zero);
	if (!m)
		return 0;
	struct flow *f = &m->there, *back = &m->back;
	__builtin_memset(m, 0, sizeof(*m));
	f->seen = now;
	f->server = id;
	f->service = s->id;
	f->mode = s->mode;
	copy_addr(f->saddr, s->mode == MODE_NAT ? p->key.daddr : p->key.saddr);
	copy_addr(f->daddr, s->mode == MODE_DIRECT ? p->key.daddr : srv->addr);
	f->sport = p->key.sport;
	f->dport = s->mode == MODE_DIRECT ? p->key.dport : srv->port;
	if (p->key.proto == IPPROTO_TCP)
		know_numbers(f, end_of(p), p->ack);
	if (route(skb, &p->key, f, now) < 0) {
		COUNT_SERVICE(s->id, no_route);
		return 0;
	}

	// The way back first: a packet from the client may only pass when its answer
	// can. With direct return there is an entry for it, too, so that all flows are
	// alike; nothing ever matches it, but an error of ICMP.
	back->seen = now;
	back->server = id;
	back->service = s->id;
	back->mode = s->mode;
	back->reverse = 1;
	back->hint = skb->ingress_ifindex;
	back->responses = s->responses;
	if (stray)
		back->flags = FLAG_STRAY;
	copy_addr(back->saddr, p->key.daddr);
	copy_addr(back->daddr, p->key.saddr);
	back->sport = p->key.dport;
	back->dport = p->key.sport;

	copy_addr(k.saddr, f->daddr);
	copy_addr(k.daddr, f->saddr);
	k.sport = f->dport;
	int err = -1; // before Linux 6.4 the tables have no more than 32 bits of it right
	for (int i = 0; i < 8; i++) {
		k.dport = f->sport;
		back->addr_diff = bpf_csum_diff(k.saddr, 32, back->saddr, 32, 0);
		back->port_diff = ports_diff(&k, back->sport, back->dport);
		err = bpf_map_update_elem(&flows, &k, back, BPF_NOEXIST);
		if (err != -17 || s->mode != MODE_NAT) // EEXIST
			break;
		f->sport = BE16((__u16)(set->first_port + bpf_get_prandom_u32() % (set->ports ?: 1)));
	}
	if (err) {
		if (err == -17)
			COUNT_SERVICE(s->id, no_port);
		else
			COUNT_SERVICE(s->id, full);
		return 0;
	}
	f->addr_diff = bpf_csum_diff((__be32 *)p->key.saddr, 32, f->saddr, 32, 0);
	f->port_diff = ports_diff(&p->key, f->sport, f->dport);
	err = bpf_map_update_elem(&flows, &p->key, f, BPF_NOEXIST);
	if (err) {
		bpf_map_delete_elem(&flows, &k);
		if (err != -17)
			COUNT_SERVICE(s->id, full);
		// Else another processor has the same packet, sent twice.
	} else {
		add_half_open(1);
		COUNT_SERVER(id, begun);
		if (stray)
			COUNT_SERVICE(s->id, strays);
	}
	return bpf_map_lookup_elem(&flows, &p->key);
}

NOINLINE int write_trouble(struct trouble *t, const struct packet *p, const struct flow *f, __u32 kind)
{
	t->kind = kind;
	t->mtu = f->mtu;
	t->v6 = p->v6;
	__builtin_memset(t->packet, 0, TROUBLE_QUOTE);
	return 0;
}

// complain has the sender of a packet hear that it could not go on: the Go side
// writes the error of ICMP.
NOINLINE int complain(struct __sk_buff *skb, const struct packet *p, struct flow *f, __u32 kind)
{
	COUNT_SERVER(f->server, dropped);
	struct trouble *t = bpf_ringbuf_reserve(&troubles, sizeof(*t), 0);
	if (!t)
		return TC_ACT_SHOT;
	write_trouble(t, p, f, kind);
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	if (p->v6) {
		if (data + ETH_LEN + 48 <= end)
			__builtin_memcpy(t->packet, data + ETH_LEN, 48);
	} else {
		if (data + ETH_LEN + 28 <= end)
			__builtin_memcpy(t->packet, data + ETH_LEN, 28);
	}
	bpf_ringbuf_submit(t, 0);
	return TC_ACT_SHOT;
}

INLINE long send_slow(struct __sk_buff *skb, struct flow *f)
{
	if (f->mode != MODE_DIRECT || f->reverse)
		return bpf_redirect_neigh(f->ifindex, 0, 0, 0);
	struct server *s = bpf_map_lookup_elem(&servers, &f->server);
	if (!s)
		return TC_ACT_SHOT;
	struct bpf_redir_neigh to = {};
	if (skb->protocol == BE16(0x86dd)) {
		to.nh_family = AF_INET6;
		copy_addr(to.nh, s->addr);
	} else {
		to.nh_family = AF_INET;
		to.nh[0] = s->addr[3];
	}
	return bpf_redirect_neigh(f->ifindex, &to, sizeof(to), 0);
}

// add_checks applies the changes of addresses and ports to a checksum that
// covers both.
INLINE void add_checks(struct __sk_buff *skb, __u32 at, __u32 addr_diff, __u32 port_diff, __u64 flags, int v6)
{
	bpf_l4_csum_replace(skb, at, 0, addr_diff, BPF_F_PSEUDO_HDR | flags);
	if (port_diff)
		bpf_l4_csum_replace(skb, at, 0, port_diff, flags);
	// A receiver's sum over the whole packet does not change in IPv6: there what
	// the addresses add, the checksum takes away. The helper thinks of IPv4, where
	// the header's own checksum does that. This undoes it; it does nothing where
	// there is no such sum.
	if (v6)
		bpf_csum_update(skb, addr_diff);
}

// carry sends a packet of a flow on.
INLINE int carry(struct __sk_buff *skb, const struct packet *p, struct flow *f, __u32 now)
{
	// The first packets and one in each tick the kernel sends its own way, so that
	// it notices when a neighbour is not what it was.
	int slow = f->slow || (!f->reverse && f->phase == PHASE_NEW);
	if (unlikely(f->route_at != now)) {
		if (untended(now))
			return TC_ACT_UNSPEC;
		if (route(skb, &p->key, f, now) < 0) {
			COUNT_SERVER(f->server, dropped);
			return TC_ACT_SHOT;
		}
		slow = 1;
	}
	if (unlikely(p->size > f->mtu))
		return complain(skb, p, f, TROUBLE_TOO_BIG);
	if (unlikely(p->ttl <= 1 && f->mode != MODE_DIRECT))
		return complain(skb, p, f, TROUBLE_TTL);
	if (f->seen != now)
		f->seen = now;

	struct server_counts *c = bpf_map_lookup_elem(&server_counters, &f->server);
	if (c) {
		__u32 packets = skb->gso_segs ?: 1;
		if (f->reverse) {
			c->packets_to_client += packets;
			c->bytes_to_client += p->payload;
		} else {
			c->packets_to_server += packets;
			c->bytes_to_server += p->payload;
		}
	}

	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ethhdr *eth = data;
	if (p->v6) {
		struct ipv6hdr *ip = data + ETH_LEN;
		__be16 *ports = (void *)(ip + 1);
		if ((void *)(ports + 2) > end)
			return TC_ACT_SHOT;
		if (f->mode != MODE_DIRECT) {
			ip->hop_limit--;
			copy_addr(ip->saddr, f->saddr);
			copy_addr(ip->daddr, f->daddr);
			ports[0] = f->sport;
			ports[1] = f->dport;
		}
	} else {
		struct iphdr *ip = data + ETH_LEN;
		__be16 *ports = (void *)(ip + 1);
		if ((void *)(ports + 2) > end)
			return TC_ACT_SHOT;
		if (f->mode != MODE_DIRECT) {
			ip->ttl--;
			ip->saddr = f->saddr[3];
			ip->daddr = f->daddr[3];
			ip->check = ~fold((__u32)(__u16)~ip->check + fold(f->addr_diff) + (__u16)~BE16(0x0100));
			ports[0] = f->sport;
			ports[1] = f->dport;
		}
	}
	if (!slow) {
		__builtin_memcpy(eth->dst, f->dmac, 6);
		__builtin_memcpy(eth->src, f->smac, 6);
	}
	if (f->mode != MODE_DIRECT) {
		if (p->key.proto == IPPROTO_TCP)
			add_checks(skb, p->l4 + 16, f->addr_diff, f->port_diff, 0, p->v6);
		else
			add_checks(skb, p->l4 + 6, f->addr_diff, f->port_diff, BPF_F_MARK_MANGLED_0, p->v6);
	}
	if (slow)
		return send_slow(skb, f);
	return bpf_redirect(f->ifindex, 0);
}

// quoted sends an error of ICMP on to who sent the packet that it is about. k is
// the key of what goes the other way than that packet, as the error does. inner
// is where the quoted IP header is.
INLINE int quoted(struct __sk_buff *skb, struct key *k, int v6, __u8 ttl)
{
	struct flow *f = bpf_map_lookup_elem(&flows, k);
	if (!f || ttl <= 1)
		return TC_ACT_UNSPEC;
	__u32 now = NOW();
	if (f->route_at != now && (untended(now) || route(skb, k, f, now) < 0))
		return TC_ACT_UNSPEC;
	if (f->mode == MODE_DIRECT)
		return f->reverse ? TC_ACT_UNSPEC : send_slow(skb, f);
	// The source changes as that of the flow's packets does: who sent the error is
	// in a network that the receiver need not know.
	int new_source = 0;
	for (int i = 0; i < 4; i++)
		new_source |= f->saddr[i] != k->saddr[i];

	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	if (v6) {
		struct ipv6hdr *ip = data + ETH_LEN;
		struct ipv6hdr *in = (void *)(ip + 1) + ICMP_LEN;
		__be16 *ports = (void *)(in + 1);
		if ((void *)(ports + 2) > end)
			return TC_ACT_SHOT;
		__be32 old[8];
		copy_addr(old, ip->saddr);
		copy_addr(old + 4, ip->daddr);
		ip->hop_limit--;
		if (new_source)
			copy_addr(ip->saddr, f->saddr);
		copy_addr(ip->daddr, f->daddr);
		copy_addr(in->saddr, f->daddr);
		copy_addr(in->daddr, f->saddr);
		ports[0] = f->dport;
		ports[1] = f->sport;
		__be32 new[8];
		copy_addr(new, ip->saddr);
		copy_addr(new + 4, ip->daddr);
		__u32 outer = bpf_csum_diff(old, 32, new, 32, 0);
		__u32 at = ETH_LEN + IP6_LEN + 2;
		add_checks(skb, at, outer, fold(f->addr_diff) + fold(f->port_diff), 0, 1);
		return send_slow(skb, f);
	}
	struct iphdr *ip = data + ETH_LEN;
	struct iphdr *in = (void *)(ip + 1) + ICMP_LEN;
	__be16 *ports = (void *)(in + 1);
	if ((void *)(ports + 2) > end)
		return TC_ACT_SHOT;
	__be32 old[2] = {ip->saddr, ip->daddr};
	__be32 new[2] = {new_source ? f->saddr[3] : ip->saddr, f->daddr[3]};
	__u32 outer = bpf_csum_diff(old, 8, new, 8, 0);
	ip->ttl--;
	ip->saddr = new[0];
	ip->daddr = new[1];
	ip->check = ~fold((__u32)(__u16)~ip->check + fold(outer) + (__u16)~BE16(0x0100));
	in->saddr = f->daddr[3];
	in->daddr = f->saddr[3];
	// The sum over the quoted header stays what it was, and with it the one that
	// is the error's own, but for the ports.
	in->check = ~fold((__u32)(__u16)~in->check + fold(f->addr_diff));
	ports[0] = f->dport;
	ports[1] = f->sport;
	if (f->port_diff)
		bpf_l4_csum_replace(skb, ETH_LEN + IP_LEN + 2, 0, f->port_diff, 0);
	return send_slow(skb, f);
}

// ours reports whether an address is that of a service, for the counters.
INLINE int ours(const __be32 *addr)
{
	return bpf_map_lookup_elem(&addresses, addr) != 0;
}

#define LEFT(p, kind)                                                                                                  \
	do {                                                                                                           \
		if (ours((p)->key.daddr))                                                                              \
			COUNT_PATH(kind);                                                              \
		return TC_ACT_UNSPEC;                                                                                  \
	} while (0)

// transport parses the header of TCP or UDP, which is at p->l4 and may use
// length bytes, and does what is to be done.
INLINE int transport(struct __sk_buff *skb, struct packet *p, __u32 length)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	__u32 header;

	if (p->key.proto == IPPROTO_TCP) {
		struct tcphdr *tcp = data + (p->v6 ? ETH_LEN + IP6_LEN : ETH_LEN + IP_LEN);
		if (length < sizeof(*tcp) || (void *)(tcp + 1) > end)
			LEFT(p, malformed);
		header = (tcp->doff >> 4) * 4;
		if (header < sizeof(*tcp) || header > length)
			LEFT(p, malformed);
		p->key.sport = tcp->source;
		p->key.dport = tcp->dest;
		p->seq = BE32(tcp->seq);
		p->ack = BE32(tcp->ack_seq);
		p->flags = tcp->flags;
	} else {
		struct udphdr *udp = data + (p->v6 ? ETH_LEN + IP6_LEN : ETH_LEN + IP_LEN);
		header = sizeof(*udp);
		if (length < sizeof(*udp) || (void *)(udp + 1) > end)
			LEFT(p, malformed);
		// In a GSO packet the length is that of a segment.
		if (BE16(udp->len) < sizeof(*udp) || (BE16(udp->len) > length && !skb->gso_size))
			LEFT(p, malformed);
		p->key.sport = udp->source;
		p->key.dport = udp->dest;
	}
	p->payload = length - header;
	if (skb->gso_size)
		p->size = p->l4 - ETH_LEN + header + skb->gso_size;

	__u32 now = NOW();
	struct flow *f = bpf_map_lookup_elem(&flows, &p->key);
	if (f) {
		int what = follow(p, f, now);
		if (what == LEAVE)
			return TC_ACT_UNSPEC;
		if (what == BEGIN)
			f = 0;
	}
	if (!f) {
		f = begin(skb, p, now);
		if (!f)
			return flowless(skb, p, now);
	}
	return carry(skb, p, f, now);
}

INLINE int ipv4(struct __sk_buff *skb)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct iphdr *ip = data + ETH_LEN;
	if ((void *)(ip + 1) > end)
		return TC_ACT_UNSPEC;
	struct packet p = {};
	map_addr(p.key.saddr, ip->saddr);
	map_addr(p.key.daddr, ip->daddr);
	p.key.proto = ip->protocol;
	p.ttl = ip->ttl;
	p.l4 = ETH_LEN + IP_LEN;
	if (p.key.proto != IPPROTO_TCP && p.key.proto != IPPROTO_UDP && p.key.proto != IPPROTO_ICMP)
		return TC_ACT_UNSPEC;
	if (ip->version_ihl != 0x45) {
		if (ip->version_ihl >> 4 == 4 && (ip->version_ihl & 15) > 5)
			LEFT(&p, options);
		LEFT(&p, malformed);
	}
	if (ip->frag_off & BE16(0x3fff)) // all but "don't fragment"
		LEFT(&p, fragments);
	__u32 size = BE16(ip->tot_len);
	if (size < IP_LEN || size > skb->len - ETH_LEN)
		LEFT(&p, malformed);
	p.size = size;
	if (p.key.proto != IPPROTO_ICMP)
		return transport(skb, &p, size - IP_LEN);

	__u8 *icmp = (void *)(ip + 1);
	struct iphdr *in = (void *)icmp + ICMP_LEN;
	__be16 *ports = (void *)(in + 1);
	if ((void *)(ports + 4) > end || size < IP_LEN + ICMP_LEN + IP_LEN + 8)
		return TC_ACT_UNSPEC;
	if (*icmp != 3 && *icmp != 11 && *icmp != 12) // unreachable, time exceeded, parameter
		return TC_ACT_UNSPEC;
	if (in->version_ihl != 0x45 || in->frag_off & BE16(0x1fff))
		return TC_ACT_UNSPEC;
	if (in->protocol != IPPROTO_TCP && in->protocol != IPPROTO_UDP)
		return TC_ACT_UNSPEC;
	if (in->saddr != ip->daddr) // an error goes to who sent the packet that it is about
		return TC_ACT_UNSPEC;
	struct key k = {};
	map_addr(k.saddr, in->daddr);
	map_addr(k.daddr, in->saddr);
	k.sport = ports[1];
	k.dport = ports[0];
	k.proto = in->protocol;
	return quoted(skb, &k, 0, p.ttl);
}

// mapped reports whether an address of IPv6 is one of IPv4: none that a packet may have
// (RFC 4291 section 2.5.5.2), and it would be taken for IPv4 here.
INLINE int mapped(const __be32 *addr)
{
	return !addr[0] && !addr[1] && addr[2] == BE32(0xffff);
}

INLINE int ipv6(struct __sk_buff *skb)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ipv6hdr *ip = data + ETH_LEN;
	if ((void *)(ip + 1) > end)
		return TC_ACT_UNSPEC;
	struct packet p = {};
	copy_addr(p.key.saddr, ip->saddr);
	copy_addr(p.key.daddr, ip->daddr);
	p.key.proto = ip->nexthdr;
	p.ttl = ip->hop_limit;
	p.v6 = 1;
	p.l4 = ETH_LEN + IP6_LEN;
	if ((ip->version_flow & BE32(0xf0000000)) != BE32(0x60000000))
		return TC_ACT_UNSPEC;
	if (mapped(p.key.saddr) || mapped(p.key.daddr))
		return TC_ACT_UNSPEC;
	__u32 length = BE16(ip->payload_len);
	switch (p.key.proto) {
	case IPPROTO_TCP:
	case IPPROTO_UDP:
		if (length > skb->len - ETH_LEN - IP6_LEN)
			LEFT(&p, malformed);
		p.size = IP6_LEN + length;
		return transport(skb, &p, length);
	case IPPROTO_ICMPV6:
		break;
	case 44:
		LEFT(&p, fragments);
	case 0:
	case 43:
	case 60:
	case 51:
	case 135:
		LEFT(&p, options);
	default:
		return TC_ACT_UNSPEC;
	}

	__u8 *icmp = (void *)(ip + 1);
	struct ipv6hdr *in = (void *)icmp + ICMP_LEN;
	__be16 *ports = (void *)(in + 1);
	if ((void *)(ports + 4) > end || length < ICMP_LEN + IP6_LEN + 8 || length > skb->len - ETH_LEN - IP6_LEN)
		return TC_ACT_UNSPEC;
	if (*icmp < 1 || *icmp > 4) // unreachable, too big, time exceeded, parameter
		return TC_ACT_UNSPEC;
	if (in->nexthdr != IPPROTO_TCP && in->nexthdr != IPPROTO_UDP)
		return TC_ACT_UNSPEC;
	struct key k = {};
	copy_addr(k.saddr, in->daddr);
	copy_addr(k.daddr, in->saddr);
	for (int i = 0; i < 4; i++) {
		if (k.daddr[i] != p.key.daddr[i])
			return TC_ACT_UNSPEC;
	}
	k.sport = ports[1];
	k.dport = ports[0];
	k.proto = in->nexthdr;
	return quoted(skb, &k, 1, p.ttl);
}

// linear has what is parsed in the part of the packet that can be read: the
// longest headers, or all of a packet that is shorter.
INLINE void linear(struct __sk_buff *skb, __u32 want)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	if (data + want > end)
		bpf_skb_pull_data(skb, skb->len < want ? skb->len : want);
}

SEC("tcx/ingress")
int appliance(struct __sk_buff *skb)
{
	__u32 protocol = skb->protocol;
	if (protocol != BE16(0x0800) && protocol != BE16(0x86dd))
		return TC_ACT_UNSPEC;
	if (skb->vlan_present) // it belongs to an interface above this one
		return TC_ACT_UNSPEC;
	if (skb->pkt_type != PACKET_HOST) {
		if (skb->pkt_type != PACKET_OTHERHOST)
			return TC_ACT_UNSPEC;
		void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
		struct ethhdr *eth = data;
		if ((void *)(eth + 1) > end)
			return TC_ACT_UNSPEC;
		struct mac m = {};
		__builtin_memcpy(m.addr, eth->dst, 6);
		m.ifindex = skb->ingress_ifindex;
		if (!bpf_map_lookup_elem(&macs, &m))
			return TC_ACT_UNSPEC;
	}
	if (protocol == BE16(0x0800)) {
		linear(skb, ETH_LEN + IP_LEN + ICMP_LEN + IP_LEN + 8);
		return ipv4(skb);
	}
	linear(skb, ETH_LEN + IP6_LEN + ICMP_LEN + IP6_LEN + 8);
	return ipv6(skb);
}

// The helpers want a licence that goes with the GPL; Apache 2.0 alone does not.
char _license[] SEC("license") = "GPL";
