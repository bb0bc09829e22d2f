package appliance

import (
	"appliance/internal/flowsync"
	"appliance/l4/kernel"
)

// told are changes of the kernel path in the words of the link. That a flow timed
// out is not told: it does there too, unless its packets come there by now, and
// then it must not end for being idle here.
func told(changes []kernel.Change) []flowsync.Change {
	all := make([]flowsync.Change, 0, len(changes))
	for _, c := range changes {
		gone := c.Kind == kernel.Ended
		if gone && c.Flow.Idle > 0 {
			continue
		}
		all = append(all, flowsync.Change{Flow: outward(c.Flow), Gone: gone})
	}
	return all
}

// outward is a flow of the kernel path in the words of the link.
func outward(f kernel.Flow) flowsync.Flow {
	return flowsync.Flow{
		Key:    flowsync.Key{Protocol: uint8(f.Protocol), Client: f.Client, Listen: f.Listen},
		Server: f.Server, Port: f.Port, Mode: uint8(f.Mode),
		ClientEnded: f.ClientEnded, ServerEnded: f.ServerEnded, Idle: f.Idle,
	}
}

// inward is a flow of the link in the words of the kernel path.
func inward(f flowsync.Flow) kernel.Flow {
	return kernel.Flow{
		Protocol: kernel.Protocol(f.Protocol), Client: f.Client, Listen: f.Listen,
		Server: f.Server, Port: f.Port, Mode: kernel.Mode(f.Mode),
		ClientEnded: f.ClientEnded, ServerEnded: f.ServerEnded, Idle: f.Idle,
	}
}
