package appliance

import (
	"net/netip"
	"slices"
	"strings"

	"appliance/internal/config"
	"appliance/internal/ingress"
	"appliance/internal/link"
	"appliance/l4"
	"appliance/l4/kernel"
)

// Place says where a service runs that asks for the kernel path.
type Place struct {
	// Service is its name.
	Service string
	// Kernel says that the kernel path would carry it; Reason is why not.
	Kernel bool
	Reason string
	// Forward is how the kernel path would, and Attach how its program would be attached.
	Forward, Attach string
}

// Places says where the services of a node would run that ask for the kernel path,
// if this process were the appliance on this machine. It loads the program, and
// unloads it again.
func Places(node *config.Node) []Place {
	var places []Place
	var trouble error
	var way ingress.Way
	tried := false
	for _, c := range node.L4 {
		if c.EffectiveMode() == l4.ModeProxy {
			continue
		}
		p := Place{Service: c.Name, Forward: string(c.EffectiveForward())}
		if reasons := node.OnProxy[c.Name]; len(reasons) > 0 {
			p.Reason = strings.Join(reasons, "; ")
			places = append(places, p)
			continue
		}
		if !tried {
			way, trouble = kernel.Supported(wayOf(node))
			tried = true
		}
		why := trouble
		if why == nil {
			why = unfit(node, c)
		}
		if p.Kernel = why == nil; !p.Kernel {
			p.Reason = why.Error()
		}
		p.Attach = string(way)
		places = append(places, p)
	}
	return places
}

// unfit says why the interfaces that have a service's addresses are none for the
// kernel path; nil if they are.
func unfit(node *config.Node, c l4.Config) error {
	for _, v := range node.VRRP {
		if !slices.ContainsFunc(c.Listen, func(a netip.AddrPort) bool { return slices.Contains(vipsOf(v.Addresses), a.Addr()) }) {
			continue
		}
		iface := v.Interface
		if iface == "" {
			var err error
			if iface, err = detect(nil, v.Config); err != nil {
				return err
			}
		}
		if _, _, err := link.Ethernet(iface); err != nil {
			return err
		}
	}
	return nil
}
