package peer

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// protocolVersion is what this version speaks. Fields and kinds may be added
// without another number; a node refuses another number.
const protocolVersion = 1

// hello is the first message of both ends; the one that dialed begins.
type hello struct {
	Protocol int    `json:"protocol"`
	Node     string `json:"node"`
	// To is who the sender takes the receiver for.
	To string `json:"to"`
	// Instance is another one for each life of the sender.
	Instance string `json:"instance"`
	// HeartbeatMS is how often the sender will be heard at least, in ms.
	HeartbeatMS int64 `json:"heartbeat_ms"`
}

// refusal says why there will be no link.
type refusal struct {
	Reason string `json:"reason"`
}

// errRefused is the kind of error of a greeting that ended in a refusal.
var errRefused = errors.New("refused")

// judge says why the node that sent h is not who this node has a link with;
// empty if it is. known are the other nodes.
func (h hello) judge(own string, known func(string) bool) string {
	switch {
	case h.Protocol != protocolVersion:
		return fmt.Sprintf("it speaks version %d of the protocol, this node %d", h.Protocol, protocolVersion)
	case h.Node == own:
		return fmt.Sprintf("it calls itself %q, which is this node's own name", h.Node)
	case !known(h.Node):
		return fmt.Sprintf("it calls itself %q, and the file of this node has no such node", h.Node)
	case h.To != own:
		return fmt.Sprintf("it takes this node for %q, which is %q", h.To, own)
	case h.Instance == "":
		return "it does not say which instance it is"
	}
	return ""
}

// pace is how often the sender is heard at least.
func (h hello) pace() time.Duration {
	return min(max(time.Duration(h.HeartbeatMS)*time.Millisecond, MinHeartbeat), MaxHeartbeat)
}

// send writes one message.
func send(w io.Writer, k kind, message any) error {
	body, err := json.Marshal(message)
	if err != nil {
		return err
	}
	_, err = w.Write(frame{kind: k, body: body}.append(nil))
	return err
}

// receiveHello reads the other end's greeting, or its refusal.
func receiveHello(c net.Conn) (hello, error) {
	f, err := readFrame(c, maxHello)
	if err != nil {
		return hello{}, err
	}
	switch f.kind {
	case kindHello:
		var h hello
		if err := json.Unmarshal(f.body, &h); err != nil {
			return hello{}, fmt.Errorf("its greeting cannot be read: %w", err)
		}
		return h, nil
	case kindRefuse:
		var r refusal
		if err := json.Unmarshal(f.body, &r); err != nil {
			return hello{}, fmt.Errorf("its refusal cannot be read: %w", err)
		}
		return hello{}, fmt.Errorf("%w: %s", errRefused, r.Reason)
	}
	return hello{}, fmt.Errorf("it began with a frame of kind %d instead of a greeting", f.kind)
}
