// The sequence numbers of TCP: what they tell of a reset or a FIN that may be forged.
#pragma once

#include "packet.h"

// How far acknowledgements that follow each other may be apart: those in between were
// lost before they came here. It is more than the windows that kernels give by
// themselves.
#define GAP (1u << 24)
// How far beyond what is known a segment may begin: it overtakes, for another processor
// takes in what was sent before it, or that was lost. It is as little as the chance to
// guess a number is to be.
#define NEAR (1u << 16)

// end_of returns the sequence number behind a segment (RFC 9293 section 3.4).
INLINE __u32 end_of(const struct packet *p)
{
	return p->seq + p->payload + !!(p->flags & SYN) + !!(p->flags & FIN);
}

INLINE void know_numbers(struct flow *f, __u32 next, __u32 acked)
{
	f->next = next;
	f->acked = acked;
	if (!(f->flags & FLAG_NUMBERS))
		__sync_fetch_and_or(&f->flags, FLAG_NUMBERS);
}

// follow_numbers takes note of the numbers of a segment. What is far from those before
// does not count: it is forged, or long over, or a lot was lost before it; see catch_up.
INLINE void follow_numbers(const struct packet *p, struct flow *f)
{
	__u32 end = end_of(p);
	if (unlikely(!(f->flags & FLAG_NUMBERS))) {
		if (p->flags & ACK)
			know_numbers(f, end, p->ack);
		return;
	}
	if (end - f->next - 1 < NEAR + p->payload)
		f->next = end;
	if (p->flags & ACK && p->ack - f->acked - 1 < GAP)
		f->acked = p->ack;
}

// doubt forgets numbers of before the address came here: the connection has gone on
// elsewhere since.
NOINLINE int doubt(struct flow *f)
{
	__u32 zero = 0;
	struct settings *set = bpf_map_lookup_elem(&configuration, &zero);
	if (f->flags & FLAG_NUMBERS && set && (int)(f->route_at - set->moved) < 0)
		__sync_fetch_and_and(&f->flags, ~FLAG_NUMBERS);
	return 0;
}

// catch_up follows a segment again after a lot was lost before it came here. Its receiver,
// from which o comes, has acknowledged more than is known to have been sent: so that
// nobody who guesses can have it done.
NOINLINE int catch_up(const struct packet *p, struct flow *f)
{
	struct key other;
	other_key(&other, f, IPPROTO_TCP);
	struct flow *o = bpf_map_lookup_elem(&flows, &other);
	__u32 end = end_of(p);
	if (o && o->flags & f->flags & FLAG_NUMBERS && o->acked - f->next - 1 < GAP && end - o->acked < GAP)
		f->next = end;
	return 0;
}

// credible reports whether a reset or a FIN of f may end it: whether its receiver, from
// which o comes, would take it. RFC 5961 section 3.2 has it take a reset only if that
// is the very next thing. What has been acknowledged is seen here, and what has been
// sent; between these it is, or a little beyond. Where nothing is known, a forged one is the worse mistake:
// without the true one a flow lasts until it is idle.
INLINE int credible(const struct packet *p, struct flow *f, struct flow *o)
{
	__u32 at = p->seq + (p->flags & RST ? 0 : p->payload);
	if (f->mode == MODE_DIRECT) // the receiver is not seen
		return f->flags & FLAG_NUMBERS && at - f->next + NEAR <= 2 * NEAR;
	doubt(o);
	if (!(o->flags & FLAG_NUMBERS))
		return 0;
	__u32 acked = o->acked, sent = 0;
	if (f->flags & FLAG_NUMBERS) {
		if (acked - f->next < GAP) // what was never sent has nobody got
			acked = f->next;
		else if (f->next - acked < GAP)
			sent = f->next - acked;
	}
	return at - acked <= sent + NEAR;
}

// news reports whether there is something in a segment that was not said before.
INLINE int news(const struct packet *p, const struct flow *f)
{
	return end_of(p) - f->next - 1 < GAP || (p->flags & ACK && p->ack - f->acked - 1 < GAP);
}
