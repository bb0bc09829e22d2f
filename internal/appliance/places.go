package appliance

import (
	"strings"

	"appliance/internal/config"
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
	// Forward is how the kernel path would.
	Forward string
}

// Places says where the services of a node would run that ask for the kernel path,
// if this process were the appliance on this machine. It loads the program, and
// unloads it again.
func Places(node *config.Node) []Place {
	var places []Place
	var trouble error
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
			trouble, tried = kernel.Supported(), true
		}
		if p.Kernel = trouble == nil; !p.Kernel {
			p.Reason = trouble.Error()
		}
		places = append(places, p)
	}
	return places
}
