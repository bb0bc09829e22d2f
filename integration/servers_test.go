package integration

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/grpclog"
	grpchealth "google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/interop"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"
)

const serversConfig = nodesConfig + `
[[l7]]
name   = "web"
listen = ["192.168.15.3:443"]
tls    = { certificates = [{ cert = "lb.pem", key = "lb.key" }] }
pool   = "rpc"

[[l7.route]]
paths = ["/mutual"]
pool  = "mutual"
[[l7.route]]
paths = ["/http2"]
pool  = "http2"
[[l7.route]]
paths = ["/h2c"]
pool  = "h2c"
[[l7.route]]
paths = ["/stranger"]
pool  = "stranger"
[[l7.route]]
paths = ["/grpc.testing.UnimplementedService"]
pool  = "nobody"

[pool.mutual]
servers = [{ name = "web3", address = "172.16.1.53:8443" }]
tls     = { server_name = "app.example.com", ca_file = "app.pem", cert = "lb.pem", key = "lb.key" }
check   = { type = "https", path = "/mutual/small", ` + quickCheck + ` }

[pool.http2]
http    = "2"
servers = [{ name = "web3", address = "172.16.1.53:8444" }]
tls     = { server_name = "app.example.com", ca_file = "app.pem" }
check   = { type = "https", path = "/http2/small", expect = "hello", ` + quickCheck + ` }

[pool.h2c]
http    = "2"
servers = [{ name = "web3", address = "172.16.1.53:8080" }]
check   = { type = "http", path = "/h2c/small", expect = "hello", ` + quickCheck + ` }

[pool.stranger]
servers = [{ name = "web3", address = "172.16.1.53:8443" }]
tls     = { server_name = "app.example.com", ca_file = "lb.pem" }

[pool.rpc]
http    = "2"
servers = [{ name = "web1", address = "172.16.1.51:50051" }, { name = "web2", address = "172.16.1.52:50051" }]
check   = { type = "grpc", service = "grpc.testing.TestService", ` + quickCheck + ` }

[pool.nobody]
http    = "2"
servers = ["172.16.1.51:50052"]
`

// An nginx of today closes a connection after some requests, by HTTP/2 with a
// farewell; this one does so often.
const serversNginx = `
daemon off; worker_processes 1; pid /run/nginx.pid; error_log stderr crit; user root;
events {}
http {
    access_log off; client_max_body_size 64m; client_body_temp_path /run/body; keepalive_requests 10;
    ssl_certificate /run/app.pem; ssl_certificate_key /run/app.key;
    root /run/site;
    location_server
}
`

// Real servers are spoken to by TLS, that ask for a certificate, by HTTP/2 over TLS
// and without, and by gRPC.
func TestServersByTLSAndHTTP2(t *testing.T) {
	t.Parallel()
	nginx, curl := need(t, "nginx", "nginx"), need(t, "curl", "curl")
	p := newPair(t, serversConfig)
	files := make(map[string][]byte)
	files["lb.pem"], files["lb.key"] = newCertificate(t, "lb.example.com")
	files["app.pem"], files["app.key"] = newCertificate(t, "app.example.com")
	for name, text := range files {
		if err := p.LB01.WriteFile("/run/appliance/"+name, text); err != nil {
			t.Fatal(err)
		}
		if err := p.Servers[2].Host.WriteFile("/run/"+name, text); err != nil {
			t.Fatal(err)
		}
	}
	site := ""
	for _, listen := range []string{
		"listen 8443 ssl; ssl_client_certificate /run/lb.pem; ssl_verify_client on;",
		"listen 8444 ssl http2;", "listen 8080 http2;",
	} {
		site += "server { " + listen + " location / { dav_methods PUT; create_full_put_path on; } }\n"
	}
	large := strings.Repeat("0123456789abcdef", 1<<17)
	for _, path := range []string{"mutual", "http2", "h2c", "stranger"} {
		if err := os.MkdirAll(p.Servers[2].Host.Path("/run/site/"+path), 0o755); err != nil {
			t.Fatal(err)
		}
		for name, text := range map[string]string{"small": "hello", "large": large} {
			if err := p.Servers[2].Host.WriteFile("/run/site/"+path+"/"+name, []byte(text)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := p.Servers[2].Host.WriteFile("/run/nginx.conf", []byte(strings.Replace(serversNginx, "location_server", site, 1))); err != nil {
		t.Fatal(err)
	}
	process, err := p.Servers[2].Host.Start(p.Servers[2].Host.Command(nginx, "-c", "/run/nginx.conf", "-p", "/run", "-e", "stderr"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { killTree(process) })
	waitAccepting(t, p.Servers[2].Host, netip.MustParseAddrPort("172.16.1.53:8443"), process)
	var rpc []*grpc.Server
	states := grpchealth.NewServer()
	states.SetServingStatus("grpc.testing.TestService", healthpb.HealthCheckResponse_SERVING)
	for i, s := range p.Servers[:2] {
		l, err := s.Host.Listen(netip.AddrPortFrom(netip.AddrFrom4([4]byte{172, 16, 1, byte(51 + i)}), 50051))
		if err != nil {
			t.Fatal(err)
		}
		server := grpc.NewServer()
		testgrpc.RegisterTestServiceServer(server, interop.NewTestServer())
		if i == 1 {
			healthpb.RegisterHealthServer(server, states)
		} else {
			own := grpchealth.NewServer()
			own.SetServingStatus("grpc.testing.TestService", healthpb.HealthCheckResponse_SERVING)
			healthpb.RegisterHealthServer(server, own)
		}
		go func() { _ = server.Serve(l) }()
		t.Cleanup(server.Stop)
		rpc = append(rpc, server)
	}
	if err := p.LB01.StartAppliance(); err != nil {
		t.Fatal(err)
	}
	p.waitActive(p.LB01)
	for _, pool := range []string{"mutual", "http2", "h2c"} {
		eventually(t, 20*time.Second, pool+" is up", func() bool { return p.server(p.LB01, pool, "web3").Health == "up" })
	}
	p.downloads(curl, large)
	p.distrusts(curl)
	p.waitUp("rpc", "web1", "web2")
	states.SetServingStatus("grpc.testing.TestService", healthpb.HealthCheckResponse_NOT_SERVING)
	eventually(t, 20*time.Second, "web2 is down", func() bool {
		s := p.server(p.LB01, "rpc", "web2")
		return s.Health == "down" && strings.Contains(s.Check, "NOT_SERVING")
	})
	states.SetServingStatus("grpc.testing.TestService", healthpb.HealthCheckResponse_SERVING)
	p.waitUp("rpc", "web1", "web2")
	p.speaksGRPC(rpc)
}

// downloads fetches and stores files by all versions of HTTP.
func (p *pair) downloads(curl, large string) {
	p.t.Helper()
	upload := filepath.Join(p.t.TempDir(), "upload")
	if err := os.WriteFile(upload, []byte(large), 0o644); err != nil {
		p.t.Fatal(err)
	}
	for _, pool := range []string{"mutual", "http2", "h2c"} {
		for _, version := range []string{"--http1.1", "--http2"} {
			url := "https://192.168.15.3/" + pool
			// More requests than the server takes on a connection.
			text, err := p.Client.Output(p.within(time.Minute), curl, "-sSk", version, "--fail", url+"/small?[1-25]")
			if err != nil || text != strings.Repeat("hello", 25) {
				p.t.Errorf("%s, %s: %q, %v", pool, version, text, err)
			}
			text, err = p.Client.Output(p.within(time.Minute), curl, "-sSk", version, "--fail", url+"/large")
			if err != nil || sumOf(text) != sumOf(large) {
				p.t.Errorf("%s, %s: %d bytes, %v", pool, version, len(text), err)
			}
			for _, more := range [][]string{{"-T", upload}, {"-T", upload, "-H", "Transfer-Encoding: chunked"}} {
				if version == "--http2" && len(more) > 2 {
					continue
				}
				args := append([]string{"-sSk", version, "--fail", url + "/upload" + version}, more...)
				if text, err = p.Client.Output(p.within(time.Minute), curl, args...); err != nil {
					p.t.Errorf("%s, %v: %q, %v", pool, args, text, err)
				}
				text, err = p.Client.Output(p.within(time.Minute), curl, "-sSk", version, "--fail", url+"/upload"+version)
				if err != nil || sumOf(text) != sumOf(large) {
					p.t.Errorf("%s, %v: %d bytes are there, %v", pool, args, len(text), err)
				}
			}
		}
	}
}

func sumOf(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// distrusts shows that a server whose certificate does not pass gets no request, and
// that people are told why.
func (p *pair) distrusts(curl string) {
	p.t.Helper()
	text, err := p.Client.Output(p.within(time.Minute), curl, "-sSk", "https://192.168.15.3/stranger/small")
	if err != nil || !strings.HasPrefix(text, "502 ") {
		p.t.Errorf("%q, %v", text, err)
	}
	const why = "TLS: the server's certificate does not pass: certificate signed by unknown authority"
	if s := p.server(p.LB01, "stranger", "web3"); !strings.HasPrefix(s.ConnectError, why) || s.ConnectErrors == 0 {
		p.t.Errorf("%+v", s)
	}
	if code, out := p.applianctl(p.LB01, "status"); code != 0 || !strings.Contains(out, "stranger/web3: a connection failed") || !strings.Contains(out, why) {
		p.t.Errorf("status: exit code %d\n%s", code, out)
	}
}

// speaksGRPC shows that gRPC's own tests of a client and a server pass: unary calls
// and streams in all directions, metadata and trailers, codes and messages, deadlines
// and cancelled calls.
func (p *pair) speaksGRPC(servers []*grpc.Server) {
	t := p.t
	t.Helper()
	grpclog.SetLoggerV2(panics{grpclog.NewLoggerV2(t.Output(), t.Output(), t.Output())})
	conn, err := grpc.NewClient("passthrough:///192.168.15.3:443",
		grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{InsecureSkipVerify: true})),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			return p.Client.DialContext(ctx, "tcp", address)
		}))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	service := testgrpc.NewTestServiceClient(conn)
	for name, test := range map[string]func(context.Context, testgrpc.TestServiceClient, ...grpc.CallOption){
		"empty unary": interop.DoEmptyUnaryCall, "large unary": interop.DoLargeUnaryCall,
		"client streaming": interop.DoClientStreaming, "server streaming": interop.DoServerStreaming,
		"ping pong": interop.DoPingPong, "empty stream": interop.DoEmptyStream,
		"timeout on sleeping server": interop.DoTimeoutOnSleepingServer,
		"cancel after begin":         interop.DoCancelAfterBegin, "cancel after first response": interop.DoCancelAfterFirstResponse,
		"status code and message": interop.DoStatusCodeAndMessage, "special status message": interop.DoSpecialStatusMessage,
		"custom metadata": interop.DoCustomMetadata,
		"unimplemented method": func(ctx context.Context, _ testgrpc.TestServiceClient, _ ...grpc.CallOption) {
			interop.DoUnimplementedMethod(ctx, conn)
		},
	} {
		func() {
			defer func() {
				if why := recover(); why != nil {
					t.Errorf("%s: %v", name, why)
				}
			}()
			test(p.within(30*time.Second), service)
		}()
	}

	// What no server answers is answered in gRPC's words.
	_, err = testgrpc.NewUnimplementedServiceClient(conn).UnimplementedCall(p.within(10*time.Second), &testgrpc.Empty{})
	if s := status.Convert(err); s.Code() != codes.Unavailable || s.Message() != "502 Bad Gateway" {
		t.Errorf("no server: %v", err)
	}

	// A server that stops in peace (GOAWAY) loses no call.
	calls := startAsking(t, func(ctx context.Context) (string, error) {
		_, err := service.EmptyCall(ctx, &testgrpc.Empty{})
		return "any", err
	})
	servers[0].GracefulStop()
	eventually(t, 20*time.Second, "web1 is down", func() bool { return p.server(p.LB01, "rpc", "web1").Health == "down" })
	calls.stop()
	failed := 0
	for _, a := range calls.between(time.Time{}, time.Now()) {
		if a.err != nil {
			failed++
			err = a.err
		}
	}
	if failed > 0 {
		t.Errorf("%d calls failed, the last one by %v", failed, err)
	}
	if s := p.server(p.LB01, "rpc", "web2"); s.Total == 0 {
		t.Errorf("%+v", s)
	}
}

// panics is a logger whose Fatal can be survived: gRPC's tests end the process by it.
type panics struct{ grpclog.LoggerV2 }

func (panics) Info(...any)                     {}
func (panics) Infoln(...any)                   {}
func (panics) Infof(string, ...any)            {}
func (panics) Warning(...any)                  {}
func (panics) Warningln(...any)                {}
func (panics) Warningf(string, ...any)         {}
func (panics) Error(...any)                    {}
func (panics) Errorln(...any)                  {}
func (panics) Errorf(string, ...any)           {}
func (panics) Fatal(args ...any)               { panic(fmt.Sprint(args...)) }
func (panics) Fatalln(args ...any)             { panic(fmt.Sprintln(args...)) }
func (panics) Fatalf(text string, args ...any) { panic(fmt.Sprintf(text, args...)) }
