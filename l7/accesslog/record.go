package accesslog

import "time"

// End is why and how a request ended, in one word.
type End string

// All ends that there are. docs/access-log.md explains them.
const (
	Done          End = "done"           // the server's answer was passed on whole
	Upgraded      End = "upgraded"       // the connection was a tunnel, and both sides have ended
	Own           End = "own"            // answered here, as configured
	Denied        End = "denied"         // by a rule: network, password, forward_auth
	Limited       End = "limited"        // the client had as much as it may
	NotFound      End = "not_found"      // no route, or no such file
	BadRequest    End = "bad_request"    // no request, or one that is not passed on
	TooLarge      End = "too_large"      // the head, or the body
	ClientSlow    End = "client_slow"    // the head or the body did not come in time
	ClientGone    End = "client_gone"    // the client left before it had the whole answer
	ClientStalled End = "client_stalled" // the client took too little of the answer, or nothing, for too long
	NoServer      End = "no_server"      // none was usable
	Full          End = "full"           // all had as much as they may, and so had the queue
	QueueTimeout  End = "queue_timeout"  // and none became free in time
	ConnectFailed End = "connect_failed" // none accepted a connection
	ServerFailed  End = "server_failed"  // no answer, or one that is none
	ServerSlow    End = "server_slow"    // no answer in time, or a pause in it that was too long
	ServerCut     End = "server_cut"     // the answer broke off
	Failed        End = "failed"         // the appliance itself could not do it: a file cannot be opened
	Stopped       End = "stopped"        // cut off by the appliance, which stops
	TLSFailed     End = "tls_failed"     // no request: the handshake failed
)

// Troubles are the ends of requests that were refused, or not answered whole.
var Troubles = [...]End{
	Denied, Limited, NotFound, BadRequest, TooLarge, ClientSlow, ClientGone, ClientStalled, NoServer, Full, QueueTimeout,
	ConnectFailed, ServerFailed, ServerSlow, ServerCut, Failed, Stopped,
}

// Record is one request. Strings may be empty, durations below zero: then there
// is nothing to say about the matter.
type Record struct {
	Time     time.Time // when it began
	Service  string
	Client   string // the address of who asks
	Proxy    string // the address of the trusted proxy that said so
	ID       string
	User     string // who has shown a password
	Method   string
	Scheme   string
	Host     string
	Target   string
	Protocol string // "HTTP/1.1"
	// Start is what came instead of a request, as far as it can be shown.
	Start  string
	Status int // 0: no answer was sent
	// BytesIn and BytesOut are of the bodies from and to the client.
	BytesIn, BytesOut int64
	Route             string
	Pool, Server      string
	// Head is how long the head took to come; Wait from there to the choice of
	// the server; Connect how long connecting to it took; FirstByte from then to the
	// head of its answer; Total is all of it.
	Head, Wait, Connect, FirstByte, Total time.Duration
	Retries                               int
	TLSVersion, TLSCipher, SNI            string
	Resumed                               bool   // the TLS session
	TLSClient                             string // the subject of the client's certificate
	Referer, UserAgent                    string
	End                                   End
	Problem                               string // what was wrong, in words
}
