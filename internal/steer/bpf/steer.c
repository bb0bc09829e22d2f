/* Hands packets of connections over to the node whose sockets they belong to.
 *
 * It runs at the ingress of the interface that has taken virtual addresses over,
 * for as long as the node that had them before still has connections. Whatever
 * has a socket here is ours; a request for a new connection is ours; what is left
 * goes out again by the same interface, to the other node.
 *
 * Written for Linux 5.10.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#ifndef TCX_NEXT
#define TCX_NEXT -1 /* of linux/bpf.h since Linux 6.6 */
#endif

/* RFC 792. */
#define UNREACHABLE 3
#define TIME_EXCEEDED 11
#define PARAMETER_PROBLEM 12

#define PACKET_HOST 0 /* of linux/if_packet.h */
#define IP_FRAGMENT 0x3fff /* more fragments, or an offset */
#define ADDRESSES 1024     /* those of a group of virtual routers, and more */

/* Set before the program is loaded. */
volatile const __u8 own[ETH_ALEN];  /* what this node sends from */
volatile const __u8 peer[ETH_ALEN]; /* the other node */
volatile const __u8 at[ETH_ALEN];   /* the hardware address of the virtual addresses */

/* Set when the addresses have gone to the other node. */
volatile __u8 gone;

/* An address as IPv6, those of IPv4 mapped. */
struct address {
	__u32 word[4];
};

/* The head of an ICMP message, of either version. */
struct icmp {
	__u8 type, code;
	__sum16 sum;
	__u32 rest;
};

/* Of the kernel's own structures what is looked at here; the loader finds out where
 * it is.
 */
#define KERNEL __attribute__((preserve_access_index))

struct sock_common {
	__u32 skc_tw_snd_nxt;
} KERNEL;

struct inet_timewait_sock {
	struct sock_common __tw_common;
} KERNEL;

struct tcp_timewait_sock {
	struct inet_timewait_sock tw_sk;
} KERNEL;

struct tcp_request_sock {
	__u32 snt_isn;
} KERNEL;

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, ADDRESSES);
	__type(key, struct address);
	__type(value, __u8);
} addresses SEC(".maps");

/* How many packets were handed over. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} handed SEC(".maps");

static __always_inline int same(const __u8 *mac, const volatile __u8 *other)
{
	const __u16 *a = (const __u16 *)mac;
	const volatile __u16 *b = (const volatile __u16 *)other;

	return a[0] == b[0] && a[1] == b[1] && a[2] == b[2];
}

static __always_inline void mapped(struct address *a, __be32 ip)
{
	a->word[0] = 0;
	a->word[1] = 0;
	a->word[2] = bpf_htonl(0xffff);
	a->word[3] = ip;
}

/* Sends the packet to the other node. */
static __always_inline int hand_over(struct __sk_buff *skb)
{
	__u8 macs[2 * ETH_ALEN];
	__u32 zero = 0;
	__u64 *count;

	for (int i = 0; i < ETH_ALEN; i++) {
		macs[i] = peer[i];
		macs[ETH_ALEN + i] = own[i];
	}
	if (bpf_skb_store_bytes(skb, 0, macs, sizeof(macs), 0))
		return TCX_NEXT;
	count = bpf_map_lookup_elem(&handed, &zero);
	if (count)
		*count += 1;
	return bpf_redirect(skb->ifindex, 0);
}

/* Leaves a packet of this node to the stack, as one for this interface itself. The
 * interface that has a virtual MAC address may be gone before a switch has learnt
 * that, and takes with it what waits to be taken in by it.
 */
static __always_inline int take_in(struct __sk_buff *skb)
{
	__u8 mac[ETH_ALEN];

	if (own[0] == at[0] && own[1] == at[1] && own[2] == at[2] && own[3] == at[3] && own[4] == at[4] && own[5] == at[5])
		return TCX_NEXT;
	for (int i = 0; i < ETH_ALEN; i++)
		mac[i] = own[i];
	if (!bpf_skb_store_bytes(skb, 0, mac, sizeof(mac), 0))
		bpf_skb_change_type(skb, PACKET_HOST);
	return TCX_NEXT;
}

/* A request for a connection is this node's, unless the addresses have gone. */
static __always_inline int request(struct __sk_buff *skb)
{
	return gone ? hand_over(skb) : take_in(skb);
}

/* Whether a segment answers a request that this node has answered. Where a client has
 * repeated its request because an answer was lost, both nodes have one: it goes on
 * with the node whose answer it has got. A socket of multipath TCP, which other
 * programs may have, does not tell.
 */
static __always_inline int answers(struct bpf_sock *sk, const struct tcphdr *tcp)
{
	struct tcp_request_sock *request = bpf_skc_to_tcp_request_sock(sk);

	return !request || !tcp->ack || bpf_ntohl(tcp->ack_seq) == request->snt_isn + 1;
}

/* Whether a segment is of the connection that is over, and not of a later one, at the
 * other node, from the same port of the client. All that this node has sent in the
 * former has been acknowledged, and is again by whatever comes still.
 */
static __always_inline int repeats(struct bpf_sock *sk, const struct tcphdr *tcp)
{
	struct tcp_timewait_sock *over = bpf_skc_to_tcp_timewait_sock(sk);

	return !over || (tcp->ack && bpf_ntohl(tcp->ack_seq) == over->tw_sk.__tw_common.skc_tw_snd_nxt);
}

/* Whether there is a connection of this node that a packet with this tuple belongs
 * to. The packet is a segment with head, or without it an error about one that this
 * node may have sent.
 */
static __always_inline int has_socket(struct __sk_buff *skb, struct bpf_sock_tuple *tuple, __u32 size,
				      void *ip, __u32 ip_size, struct tcphdr *head)
{
	struct bpf_sock *sk = bpf_skc_lookup_tcp(skb, tuple, size, BPF_F_CURRENT_NETNS, 0);
	int ours = 1;

	if (!sk)
		return 0;
	switch (sk->state) {
	case BPF_TCP_LISTEN:
		/* A cookie has been sent in place of keeping the request. */
		ours = head && head->ack && !head->rst &&
		       bpf_tcp_check_syncookie(sk, ip, ip_size, head, sizeof(*head)) == 0;
		break;
	case BPF_TCP_NEW_SYN_RECV:
		ours = !head || answers(sk, head);
		break;
	case BPF_TCP_TIME_WAIT:
		ours = head && repeats(sk, head);
		break;
	}
	bpf_sk_release(sk);
	return ours;
}

static __always_inline int segment4(struct __sk_buff *skb, struct iphdr *ip, void *end)
{
	struct tcphdr *tcp = (void *)ip + ip->ihl * 4;
	struct bpf_sock_tuple tuple = {};
	struct address local;

	if (ip->ihl < 5 || (void *)(tcp + 1) > end)
		return TCX_NEXT;
	mapped(&local, ip->daddr);
	if (!bpf_map_lookup_elem(&addresses, &local))
		return TCX_NEXT;
	if (tcp->syn && !tcp->ack)
		return request(skb);
	tuple.ipv4.saddr = ip->saddr;
	tuple.ipv4.daddr = ip->daddr;
	tuple.ipv4.sport = tcp->source;
	tuple.ipv4.dport = tcp->dest;
	if (has_socket(skb, &tuple, sizeof(tuple.ipv4), ip, sizeof(*ip), tcp))
		return take_in(skb);
	return hand_over(skb);
}

/* A segment of this node came to harm on its way: path MTU discovery above all. */
static __always_inline int error4(struct __sk_buff *skb, struct iphdr *ip, void *end)
{
	struct icmp *icmp = (void *)ip + ip->ihl * 4;
	struct iphdr *inner = (void *)(icmp + 1);
	struct bpf_sock_tuple tuple = {};
	struct address local;
	__be16 *ports;

	if (ip->ihl < 5 || (void *)(inner + 1) > end)
		return TCX_NEXT;
	if (icmp->type != UNREACHABLE && icmp->type != TIME_EXCEEDED && icmp->type != PARAMETER_PROBLEM)
		return TCX_NEXT;
	/* An error goes to who sent the packet that it is about. */
	if (inner->ihl < 5 || inner->protocol != IPPROTO_TCP || inner->saddr != ip->daddr)
		return TCX_NEXT;
	ports = (void *)inner + inner->ihl * 4;
	if ((void *)(ports + 2) > end)
		return TCX_NEXT;
	mapped(&local, inner->saddr);
	if (!bpf_map_lookup_elem(&addresses, &local))
		return TCX_NEXT;
	tuple.ipv4.saddr = inner->daddr;
	tuple.ipv4.daddr = inner->saddr;
	tuple.ipv4.sport = ports[1];
	tuple.ipv4.dport = ports[0];
	if (has_socket(skb, &tuple, sizeof(tuple.ipv4), 0, 0, 0))
		return take_in(skb);
	return hand_over(skb);
}

static __always_inline int segment6(struct __sk_buff *skb, struct ipv6hdr *ip, void *end)
{
	struct tcphdr *tcp = (void *)(ip + 1);
	struct bpf_sock_tuple tuple = {};
	struct address local;

	if ((void *)(tcp + 1) > end)
		return TCX_NEXT;
	__builtin_memcpy(&local, &ip->daddr, sizeof(local));
	if (!bpf_map_lookup_elem(&addresses, &local))
		return TCX_NEXT;
	if (tcp->syn && !tcp->ack)
		return request(skb);
	__builtin_memcpy(tuple.ipv6.saddr, &ip->saddr, sizeof(tuple.ipv6.saddr));
	__builtin_memcpy(tuple.ipv6.daddr, &ip->daddr, sizeof(tuple.ipv6.daddr));
	tuple.ipv6.sport = tcp->source;
	tuple.ipv6.dport = tcp->dest;
	if (has_socket(skb, &tuple, sizeof(tuple.ipv6), ip, sizeof(*ip), tcp))
		return take_in(skb);
	return hand_over(skb);
}

static __always_inline int error6(struct __sk_buff *skb, struct ipv6hdr *ip, void *end)
{
	struct icmp *icmp = (void *)(ip + 1);
	struct ipv6hdr *inner = (void *)(icmp + 1);
	__be16 *ports = (void *)(inner + 1);
	struct bpf_sock_tuple tuple = {};
	struct address local;

	if ((void *)(ports + 2) > end)
		return TCX_NEXT;
	/* RFC 4443 section 2.1: errors have types below 128. */
	if (icmp->type >= 128 || inner->nexthdr != IPPROTO_TCP)
		return TCX_NEXT;
	for (int i = 0; i < 4; i++)
		if (inner->saddr.in6_u.u6_addr32[i] != ip->daddr.in6_u.u6_addr32[i])
			return TCX_NEXT;
	__builtin_memcpy(&local, &inner->saddr, sizeof(local));
	if (!bpf_map_lookup_elem(&addresses, &local))
		return TCX_NEXT;
	__builtin_memcpy(tuple.ipv6.saddr, &inner->daddr, sizeof(tuple.ipv6.saddr));
	__builtin_memcpy(tuple.ipv6.daddr, &inner->saddr, sizeof(tuple.ipv6.daddr));
	tuple.ipv6.sport = ports[1];
	tuple.ipv6.dport = ports[0];
	if (has_socket(skb, &tuple, sizeof(tuple.ipv6), 0, 0, 0))
		return take_in(skb);
	return hand_over(skb);
}

static __always_inline int packet4(struct __sk_buff *skb, void *end)
{
	struct iphdr *ip = (void *)(long)skb->data + ETH_HLEN;

	if ((void *)(ip + 1) > end || ip->frag_off & bpf_htons(IP_FRAGMENT))
		return TCX_NEXT;
	switch (ip->protocol) {
	case IPPROTO_TCP:
		return segment4(skb, ip, end);
	case IPPROTO_ICMP:
		return error4(skb, ip, end);
	}
	return TCX_NEXT;
}

static __always_inline int packet6(struct __sk_buff *skb, void *end)
{
	struct ipv6hdr *ip = (void *)(long)skb->data + ETH_HLEN;

	if ((void *)(ip + 1) > end)
		return TCX_NEXT;
	switch (ip->nexthdr) {
	case IPPROTO_TCP:
		return segment6(skb, ip, end);
	case IPPROTO_ICMPV6:
		return error6(skb, ip, end);
	}
	return TCX_NEXT;
}

/* The longest head that is looked at: of an ICMP error about a segment. */
#define HEAD (ETH_HLEN + 2 * sizeof(struct ipv6hdr) + sizeof(struct icmp) + 4)

SEC("tcx/ingress")
int steer(struct __sk_buff *skb)
{
	struct ethhdr *eth;
	void *end;

	/* A frame of a VLAN on this interface is not of this LAN. */
	if (skb->vlan_present || (skb->protocol != bpf_htons(ETH_P_IP) && skb->protocol != bpf_htons(ETH_P_IPV6)))
		return TCX_NEXT;
	if (skb->data_end - skb->data < HEAD && skb->data_end - skb->data < skb->len)
		bpf_skb_pull_data(skb, skb->len < HEAD ? skb->len : HEAD);
	eth = (void *)(long)skb->data;
	end = (void *)(long)skb->data_end;
	if ((void *)(eth + 1) > end)
		return TCX_NEXT;
	/* What a switch floods to a promiscuous interface is the business of whoever
	 * it is addressed to; and what the other node hands over must not go back.
	 */
	if (!same(eth->h_dest, at) || same(eth->h_source, peer))
		return TCX_NEXT;
	return skb->protocol == bpf_htons(ETH_P_IP) ? packet4(skb, end) : packet6(skb, end);
}

char _license[] SEC("license") = "Dual BSD/GPL";
