package config

import "strings"

// foreign is what a word of another program is called here.
type foreign struct {
	// key is the key of the same table that takes its place, or "".
	key string
	// text says what to write instead.
	text string
}

// foreignWords are words of keepalived, nginx and HAProxy that people write who
// come from there. A word that means something else in another table has the
// name of its outermost table before it.
var foreignWords = map[string]foreign{
	// keepalived
	"vrrp_instance":          {text: "keepalived's vrrp_instance is a table [[vrrp]] with a name"},
	"vrrp_sync_group":        {text: "keepalived's vrrp_sync_group is the key group in each [[vrrp]] of it"},
	"vrrp_script":            {text: scriptText},
	"track_script":           {text: scriptText},
	"script":                 {text: scriptText},
	"chk_script":             {text: scriptText},
	"track_interface":        {key: "track", text: "write track = [{ interface = \"eth1\" }]"},
	"notify":                 {text: notifyText},
	"notify_master":          {text: notifyText},
	"notify_backup":          {text: notifyText},
	"notify_fault":           {text: notifyText},
	"global_defs":            {text: "there is nothing of the kind; leave it out"},
	"vrrp.state":             {text: "there is no first state: the priorities of the nodes decide; leave it out"},
	"vrrp.nopreempt":         {key: "preempt", text: "write preempt = false"},
	"vrrp.advert_int":        {key: "advert_interval", text: "write advert_interval = \"1s\""},
	"vrrp.virtual_ipaddress": {key: "addresses", text: "write addresses = [\"192.168.15.3/24\"]"},
	"vrrp.virtual_ip":        {key: "addresses", text: "write addresses = [\"192.168.15.3/24\"]"},
	"vrrp.router_id":         {key: "virtual_router_id", text: "did you mean virtual_router_id?"},
	"vrrp.vrid":              {key: "virtual_router_id", text: "did you mean virtual_router_id?"},
	"vrrp.auth_type":         {text: authText},
	"vrrp.auth_pass":         {text: authText},
	"vrrp.unicast_peer":      {key: "unicast", text: "write unicast = true; the addresses are those of the nodes"},
	"vrrp.unicast_src_ip":    {key: "unicast", text: "write unicast = true; the addresses are those of the nodes"},
	"vrrp.use_vmac":          {key: "virtual_mac", text: "write virtual_mac = true"},
	"vrrp.vrrp_version":      {key: "version", text: "did you mean version?"},
	"virtual_server":         {text: "keepalived's virtual_server is a service in [[l4]] with a pool"},
	"real_server":            {text: serversText},
	// nginx
	"upstream":               {text: "nginx's upstream is a table [pool.NAME] with servers"},
	"server":                 {text: serversText},
	"http":                   {text: "nginx's http { server {} } is a table [[l7]]"},
	"stream":                 {text: "nginx's stream { server {} } is a table [[l4]]"},
	"location":               {text: "nginx's location is a table [[l7.route]] with paths"},
	"proxy_pass":             {key: "pool", text: "name a pool, pool = \"NAME\", whose table [pool.NAME] has the servers"},
	"server_name":            {text: "names stand in hosts of a [[l7.route]], and the certificates say for which TLS is"},
	"ssl_certificate":        {key: "tls", text: certificateText},
	"ssl_certificate_key":    {key: "tls", text: certificateText},
	"l7.ssl":                 {key: "tls", text: certificateText},
	"l7.cert":                {text: certificateText},
	"l7.key":                 {text: certificateText},
	"ssl_client_certificate": {text: "write client_ca in [l7.tls]"},
	"ssl_protocols":          {text: "TLS 1.2 and 1.3 are spoken (docs/tls.md); leave it out"},
	"ssl_ciphers":            {text: "the ciphers are chosen for you (docs/tls.md); leave it out"},
	"limit_req":              {key: "per_client", text: "write per_client = { rate = 20, burst = 40 }, in requests a second"},
	"limit_conn":             {key: "per_client", text: "write per_client = { max_requests = 10 }, in [[l4]] per_client = { max_connections = 10 }"},
	"client_max_body_size":   {key: "max_body_size", text: "write max_body_size = \"10MiB\""},
	"proxy_connect_timeout":  {key: "timeouts", text: "write timeouts = { connect = \"3s\" }"},
	"proxy_read_timeout":     {key: "timeouts", text: "write timeouts = { response = \"60s\" }"},
	"proxy_timeout":          {key: "timeouts", text: "write timeouts = { idle = \"1h\" }"},
	"proxy_set_header":       {text: "write request_headers = { set = { NAME = \"value\" } }; X-Forwarded-* and Host are sent anyway"},
	"add_header":             {text: "write response_headers = { add = { NAME = \"value\" } }"},
	"proxy_next_upstream":    {key: "retry", text: "write retry = { tries = 3 }"},
	"proxy_protocol":         {text: "write accept_proxy in the service, send_proxy in the pool"},
	"return":                 {text: "write redirect = { scheme = \"https\" } or respond = { status = 404 }"},
	"l7.root":                {text: "write files = \"/srv/static\" in a [[l7.route]]"},
	"l7.error_page":          {text: "write error_pages = { 502 = \"pages/502.html\" }"},
	"max_fails":              {text: "how often a check fails until a server is down: check = { fall = 3 }; connections of clients that fail: outlier = { consecutive_failures = 5 }"},
	"fail_timeout":           {text: "see outlier, with base and max, and the check's interval"},
	"ip_hash":                {key: "balance", text: "write balance = \"source_hash\""},
	"least_conn":             {key: "balance", text: "write balance = \"least_conn\""},
	"pool.keepalive":         {text: "connections to servers are kept anyway; leave it out"},
	// HAProxy
	"frontend":        {text: "HAProxy's frontend is a service in [[l7]] or [[l4]]"},
	"backend":         {text: "HAProxy's backend is a table [pool.NAME]"},
	"bind":            {key: "listen", text: "write listen = [\"192.168.15.3:443\"]"},
	"default_backend": {key: "pool", text: "write pool = \"NAME\""},
	"use_backend":     {text: "a backend that depends on the request is a [[l7.route]] with hosts, paths and so on, and a pool"},
	"acl":             {text: "conditions stand in a [[l7.route]]: hosts, paths, methods, headers, query"},
	"mode_tcp":        {text: "TCP is [[l4]], HTTP is [[l7]]"},
	"option":          {text: "a check by HTTP is check = { type = \"http\", path = \"/health\" }"},
	"stick_table":     {text: "clients are kept at a server by sticky (a cookie) or balance = \"source_hash\", and bounded by per_client"},
	"maxconn":         {key: "max_connections", text: "did you mean max_connections?"},
	"inter":           {key: "interval", text: "write interval = \"2s\""},
	"cookie":          {text: "write sticky = { cookie = \"srv\", key_file = \"sticky.key\" }"},
	"defaults":        {text: "there are no defaults to set; leave it out"},
	"global":          {text: "there is nothing of the kind; leave it out"},
}

const (
	scriptText      = "there are no scripts: health checks move the election; write track = [{ service = \"web\" }], and a check in the service's pool"
	notifyText      = "there are no scripts to be called; who wants to know of changes follows applianctl events --follow --json, or the metrics"
	authText        = "write authentication = { type = \"pass\", password = \"1111\" }, with version = 2"
	serversText     = "write servers = [\"172.16.1.21:8000\"] in a [pool.NAME]"
	certificateText = "write tls = { certificates = [{ cert = \"blog.pem\", key = \"blog.key\" }] }"
)

// foreignWord returns what a word at a place of the file is called here.
func foreignWord(path, name string) (foreign, bool) {
	outermost := withoutIndexes(path)
	if i := strings.IndexByte(outermost, '.'); i >= 0 {
		outermost = outermost[:i]
	}
	name = strings.ReplaceAll(strings.ToLower(name), "-", "_")
	if f, ok := foreignWords[outermost+"."+name]; ok {
		return f, true
	}
	f, ok := foreignWords[name]
	return f, ok
}
