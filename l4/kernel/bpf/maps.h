// The maps that path.c and the Go side share, and what is in them.
#pragma once

#include "kernel.h"

#define TABLE_SIZE 16381 // of a Maglev table: a prime
#define MAX_SERVICES 1024
#define MAX_SERVERS 8192

// An address is IPv6, or IPv4 mapped into it. Ports are in the order of the
// network.
struct key {
	__be32 saddr[4];
	__be32 daddr[4];
	__be16 sport;
	__be16 dport;
	__u8 proto;
	__u8 pad[3];
};

enum mode { MODE_NAT, MODE_DNAT, MODE_DIRECT };

enum phase {
	PHASE_NEW,	   // the handshake is not complete, or the server has not answered yet
	PHASE_ESTABLISHED, // both sides have proved that they are there
	PHASE_CLOSED,	   // kept for what is still under way
};

enum flags {
	FLAG_SYNACK = 1 << 0,	   // the server has answered the SYN
	FLAG_CLIENT_FIN = 1 << 1,
	FLAG_SERVER_FIN = 1 << 2,
	FLAG_CLIENT_RST = 1 << 3,
	FLAG_SERVER_RST = 1 << 4,
	FLAG_INSTALLED = 1 << 5,   // the other node carries it
	FLAG_STRAY = 1 << 6,	   // it did not begin here, and the server has not shown yet that it knows of it
	FLAG_NUMBERS = 1 << 7,	   // next and acked are known
};

// A flow is one direction of a connection: what to make of its packets. The
// state of the connection (phase, flags) is that of the direction from the client; the
// other has a copy of the flags that it needs itself.
struct flow {
	__u32 phase;
	__u32 flags;
	__u32 seen; // in ticks
	__u32 server;
	__u32 service;
	__u32 next;	 // TCP: the sequence number behind all that was sent this way
	__u32 addr_diff; // what the new addresses change in a checksum
	__u32 port_diff; // what the new ports change
	__be32 saddr[4];
	__be32 daddr[4];
	__be16 sport;
	__be16 dport;
	__u8 mode;
	__u8 reverse; // from the server to the client
	__u8 slow;    // the MACs are not known: the kernel finds the neighbour
	__u8 pad;
	__u8 dmac[6];
	__u8 smac[6];
	union {
		__u32 acked;	 // TCP: what was acknowledged this way
		__u32 responses; // UDP: that the client may still get, 0 for any number; of the direction from the server
	};
	__u32 ifindex;	 // the way out
	__u32 route_at;	 // in ticks: ifindex, MACs and mtu are of then
	__u32 hint;	 // the way to the client where the kernel does not forward
	__u32 mtu;
};

struct service {
	__u32 id; // of its table
	__u32 ifindex;
	__u16 responses;
	__u8 mode;
	__u8 by_client;
};

enum server_state { SERVER_READY, SERVER_DRAIN, SERVER_MAINT, SERVER_DOWN };

struct server {
	__be32 addr[4];
	__be16 port;
	__u8 state;
	__u8 reset; // its flows are to be reset
	__u32 ifindex;
};

struct server_counts {
	__u64 packets_to_server;
	__u64 packets_to_client;
	__u64 bytes_to_server;
	__u64 bytes_to_client;
	__u64 begun;
	__u64 established;
	__u64 ended; // of those established
	__u64 broken;
	__u64 refused;
	__u64 dropped;
};

struct service_counts {
	__u64 no_server;
	__u64 full;
	__u64 half_open;
	__u64 no_port;
	__u64 no_route;
	__u64 strays;
};

struct path_counts {
	__u64 fragments;
	__u64 options;
	__u64 malformed;
	__u64 changes_lost;
	__u64 early;
};

struct settings {
	__u32 max_half_open;
	__u16 first_port;
	__u16 ports; // how many
	__u32 changes; // tell them
	__u32 moved;   // in ticks: when an address has come here
	__u32 strays;  // in ticks: until when connections are taken of which no flow is known
	__u32 tended;  // in ticks: when the Go side has looked at the flows last
};

enum change_kind { CHANGE_ESTABLISHED = 1, CHANGE_REFRESHED, CHANGE_ENDED };

struct change {
	struct key key; // from the client
	__u32 kind;
	__u32 server;
	__u32 flags;
	__be16 port; // that stands for the client
	__u8 mode;
	__u8 pad;
};

enum trouble_kind { TROUBLE_TOO_BIG = 1, TROUBLE_TTL };

#define TROUBLE_QUOTE 48

// A packet that cannot go on, and of which its sender is to hear.
struct trouble {
	__u32 kind;
	__u32 mtu;
	__u32 v6;
	__u8 packet[TROUBLE_QUOTE]; // from the IP header on: IPv4 28 bytes of it, IPv6 all
};

struct mac {
	__u8 addr[6];
	__u8 pad[2];
	__u32 ifindex;
};

// Both directions of all flows. Memory is taken for what is there.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 2);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct key);
	__type(value, struct flow);
} flows SEC(".maps");

// Room for a flow that is being made: the stack is too small.
struct making {
	struct flow there;
	struct flow back;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct making);
} makings SEC(".maps");

// How many flows are PHASE_NEW. The Go side corrects it when it looks at all.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __s64);
} half_open SEC(".maps");

// Not 0 if no flow begins any more: the process is dead, and the guard has shut it.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} door SEC(".maps");

// By daddr, dport and proto; the rest of the key is 0.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, struct key);
	__type(value, struct service);
} services SEC(".maps");

// The addresses of all services, to know what is worth counting.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, __be32[4]);
	__type(value, __u32);
} addresses SEC(".maps");

// The servers of the services, by saddr, sport and proto; the rest of the key is 0.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_SERVERS);
	__type(key, struct key);
	__type(value, __u32);
} backends SEC(".maps");

// MAC addresses besides the interface's own for which frames are taken.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, struct mac);
	__type(value, __u32);
} macs SEC(".maps");

struct table {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, TABLE_SIZE);
	__type(key, __u32);
	__type(value, __u32);
};

// The Maglev tables by the service's id; in them servers, never 0. A service of
// which no server may have new flows has none.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, MAX_SERVICES);
	__type(key, __u32);
	__array(values, struct table);
} tables SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_SERVERS);
	__type(key, __u32);
	__type(value, struct server);
} servers SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, MAX_SERVERS);
	__type(key, __u32);
	__type(value, struct server_counts);
} server_counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, MAX_SERVICES);
	__type(key, __u32);
	__type(value, struct service_counts);
} service_counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct path_counts);
} path_counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct settings);
} configuration SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
} changes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 16);
} troubles SEC(".maps");
