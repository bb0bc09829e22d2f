// A packet as it is parsed, and what all that looks at it needs.
#pragma once

#include "maps.h"

#define IPPROTO_ICMP 1
#define IPPROTO_TCP 6
#define IPPROTO_UDP 17
#define IPPROTO_ICMPV6 58

#define ETH_LEN sizeof(struct ethhdr)
#define IP_LEN sizeof(struct iphdr)
#define IP6_LEN sizeof(struct ipv6hdr)
#define ICMP_LEN 8

#define FIN 0x01
#define SYN 0x02
#define RST 0x04
#define ACK 0x10

// A tick is 2^30 ns, about a second.
#define NOW() ((__u32)(bpf_ktime_get_coarse_ns() >> 30))

struct packet {
	struct key key;
	__u32 l4;      // where the header of TCP or UDP is
	__u32 payload; // bytes behind it
	__u32 size;    // of the IP packet, or of the largest segment that it becomes
	__u32 seq;
	__u32 ack;
	__u8 flags;
	__u8 ttl;
	__u8 v6;
};

enum { LEAVE, CARRY, BEGIN };

INLINE void copy_addr(__be32 *to, const __be32 *from)
{
	to[0] = from[0];
	to[1] = from[1];
	to[2] = from[2];
	to[3] = from[3];
}

INLINE void map_addr(__be32 *to, __be32 v4)
{
	to[0] = 0;
	to[1] = 0;
	to[2] = BE32(0xffff);
	to[3] = v4;
}

// other_key makes the key of the other direction of f.
INLINE void other_key(struct key *k, const struct flow *f, __u8 proto)
{
	copy_addr(k->saddr, f->daddr);
	copy_addr(k->daddr, f->saddr);
	k->sport = f->dport;
	k->dport = f->sport;
	k->proto = proto;
	k->pad[0] = 0;
	k->pad[1] = 0;
	k->pad[2] = 0;
}

INLINE __u16 fold(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

// ports_diff is what new ports change in a checksum.
INLINE __u32 ports_diff(const struct key *k, __be16 sport, __be16 dport)
{
	return (__u32)(__u16)~k->sport + (__u16)~k->dport + sport + dport;
}

#define COUNT(map, type, id, field)                                                                                    \
	do {                                                                                                           \
		__u32 id_ = (id);                                                                                      \
		struct type *c_ = bpf_map_lookup_elem(&map, &id_);                                                     \
		if (c_)                                                                                                \
			c_->field++;                                                                                   \
	} while (0)
#define COUNT_SERVER(id, field) COUNT(server_counters, server_counts, id, field)
#define COUNT_SERVICE(id, field) COUNT(service_counters, service_counts, id, field)
#define COUNT_PATH(field) COUNT(path_counters, path_counts, 0, field)
