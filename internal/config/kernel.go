package config

import (
	"fmt"
	"net/netip"
	"slices"

	"appliance/l4"
)

// obstacle is a key that asks for what the kernel path cannot do.
type obstacle struct {
	at     string // the path of the key
	reason string
}

// kernelObstacles returns what keeps the l4 service numbered i off the kernel
// path.
func (f *File) kernelObstacles(i int) []obstacle {
	c, at := f.L4[i].Config, index("l4", i)
	var all []obstacle
	for _, o := range c.Obstacles() {
		all = append(all, obstacle{at + "." + o.Key, o.Reason})
	}
	for k, listen := range c.Listen {
		if !f.isVirtual(listen.Addr()) && !listen.Addr().IsUnspecified() {
			all = append(all, obstacle{index(at+".listen", k), fmt.Sprintf("the kernel path serves virtual addresses, and no [[vrrp]] has %s", listen.Addr())})
		}
	}
	for _, s := range f.services() {
		if s.path != at {
			continue
		}
		// What routes are for is told above.
		name := c.PoolName()
		p, path := f.poolOf(s, name)
		for _, o := range c.PoolObstacles(p.Config) {
			all = append(all, obstacle{path + "." + o.Key, o.Reason})
		}
	}
	return all
}

// isVirtual reports whether a virtual router has the address.
func (f *File) isVirtual(address netip.Addr) bool {
	return slices.ContainsFunc(f.VRRP, func(v VRRPEntry) bool {
		return slices.ContainsFunc(v.Addresses, func(p netip.Prefix) bool { return p.Addr() == address })
	})
}

// validateKernel reports what services with mode "kernel" ask for and the kernel
// path cannot do.
func (f *File) validateKernel(r *report) {
	if n := f.Kernel.Flows; n != 0 && (n < MinFlows || n > MaxFlows) {
		r.invalid("kernel.flows", "%d is out of range; %d to %d are allowed", n, MinFlows, MaxFlows)
	}
	if a := f.Kernel.Attach; !slices.Contains([]string{"", AttachAuto, AttachTCX, AttachClsact}, a) {
		r.invalid("kernel.attach", "%q is none of \"auto\", \"tcx\" and \"clsact\"", a)
	}
	for i, s := range f.L4 {
		if s.Mode != l4.ModeKernel {
			continue
		}
		for _, o := range f.kernelObstacles(i) {
			r.invalid(o.at, "service %s has mode = \"kernel\": %s; take that out, or give the service mode = \"auto\", which runs it on the proxy", s.Name, o.reason)
		}
	}
}
