package kernel

import (
	"net/netip"
	"slices"
)

// The bounds of what the program's maps hold.
const (
	maxServices = 1024
	maxServers  = 8192 // of all services; 0 means none
	maxListen   = 4096 // of all services
)

// registry knows the numbers by which the program knows services and servers.
// A number stays taken while there are flows of it.
type registry struct {
	services []*service          // in the order of Set
	names    map[string]*service // these, by name; after a Set that failed, others
	listen   map[programKey]*service
	byID     map[uint32]*service // these, and retired ones that still have flows
	servers  map[uint32]*server
}

// service is one that the program knows.
type service struct {
	Service
	id      uint32
	servers map[netip.AddrPort]*server // with those that Set does not name any more
	table   []candidate                // what its table was made of
	// timedOut counts the established flows that ended because nothing moved.
	timedOut int64
}

// server is one of a service.
type server struct {
	id      uint32
	addr    netip.AddrPort
	service *service
	listed  bool // Set names it
	used    bool // a flow may have begun with it since the round of the sweep began
	value   programServer
	// current corrects established - ended of the program's counters, and halfOpen
	// is the number of half-open flows; both as of the latest sweep.
	current, halfOpen int64
}

func newRegistry() *registry {
	return &registry{
		names:   make(map[string]*service),
		listen:  make(map[programKey]*service),
		byID:    make(map[uint32]*service),
		servers: make(map[uint32]*server),
	}
}

// free returns a number below limit, and at least 1, that taken does not have,
// or 0.
func free[T any](taken map[uint32]T, limit uint32) uint32 {
	if len(taken) >= int(limit)-1 {
		return 0
	}
	for id := uint32(1); id < limit; id++ {
		if _, ok := taken[id]; !ok {
			return id
		}
	}
	return 0
}

// list returns the servers of s in the order of Set, then the others by address.
func (s *service) list() []*server {
	list := make([]*server, 0, len(s.servers))
	for _, cfg := range s.Servers {
		list = append(list, s.servers[cfg.Addr])
	}
	var others []*server
	for _, srv := range s.servers {
		if !srv.listed {
			others = append(others, srv)
		}
	}
	slices.SortFunc(others, func(a, b *server) int { return a.addr.Compare(b.addr) })
	return append(list, others...)
}

// listenKey is how the program knows an address of a service.
func listenKey(proto Protocol, a netip.AddrPort) programKey {
	return programKey{Daddr: words(a.Addr()), Dport: port(a.Port()), Proto: uint8(proto)}
}
