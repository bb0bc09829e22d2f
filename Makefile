# make help lists the targets.

VERSION ?= $(shell git describe --tags --always 2>/dev/null || echo 0.1.0-dev)
LDFLAGS := -s -w -X main.version=$(VERSION)

.PHONY: help build test unit integration lint fuzz lab packages clean bpf soak soak-timing bench-failover bench-handover bench-health bench-kernel bench-l4 bench-l7 scan-tls bench-kernel-failover

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-22s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## build the static binary build/applianctl
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o build/applianctl ./cmd/applianctl

test: packages lint unit integration ## install what the tests need, then run every check and test

packages: ## install the Debian packages that tests and benchmarks need, where that is possible
	@sh integration/packages.sh

lint: ## gofmt, go vet, staticcheck
	@unformatted=$$(gofmt -l .); [ -z "$$unformatted" ] || { echo "gofmt would change:" $$unformatted; exit 1; }
	go vet ./...
	go vet -tags bench,soak,scan ./integration
	go tool staticcheck ./...

unit: ## the tests of each package, with the race detector
	go test -race -parallel 4 $$(go list ./... | grep -v /integration)

integration: ## the tests of the whole appliance, in network namespaces
	go test -count=1 -timeout 20m -parallel 6 ./integration

fuzz: ## fuzz each parser for FUZZTIME (default 20s)
	@for package in $$(go list ./...); do \
		for target in $$(go test -list '^Fuzz' $$package | grep '^Fuzz'); do \
			go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $${FUZZTIME:-20s} $$package || exit 1; \
		done; \
	done

bpf: packages ## compile the BPF programs anew, into the objects that are committed
	CPATH=/usr/include/$$(uname -m)-linux-gnu go generate ./internal/steer ./l4/kernel

soak: packages ## troubles at random for SOAK_FOR (default 3m); SOAK_SEED repeats a run
	go test -count=1 -timeout 0 -tags soak -v -run '^TestSoak$$' ./integration

soak-timing: packages ## adverts of 10 ms while both engines saturate the CPUs for TIMING_FOR (default 10m)
	TIMING_FOR=$${TIMING_FOR:-10m} go test -count=1 -timeout 0 -v -run '^TestShortAdvertsUnderSaturation$$' ./integration

bench-failover: packages ## lose the active node BENCH_CRASHES times (default 100), beside keepalived; writes docs/benchmarks.md
	BENCH_INTO=$(CURDIR)/docs/benchmarks.md go test -count=1 -timeout 0 -tags bench -v -run '^TestBenchFailover$$' ./integration

bench-handover: packages ## for how long connections stand still in BENCH_SWITCHES planned switches (default 10)
	go test -count=1 -timeout 0 -tags bench -v -run '^TestBenchHandover$$' ./integration

scan-tls: packages ## let testssl.sh judge the defaults of TLS, some minutes
	go test -count=1 -timeout 0 -tags scan -v -run '^TestScan$$' ./integration

bench-kernel-failover: packages ## lose the active node under 5,000 new connections a second of the kernel path; writes docs/kernel.md
	BENCH_INTO=$(CURDIR)/docs/kernel.md go test -count=1 -timeout 0 -tags bench -v -run '^TestBenchKernelFailover$$' ./integration

lab: ## a pair in namespaces, narrated
	go run ./cmd/applianctl lab

clean: ## remove what build made
	rm -rf build

bench-health: ## what the checks of 1,000 servers at intervals of 1 s cost
	go test -run '^$$' -bench ThousandServers -benchtime 1x ./health

bench-l4: packages build ## compare the L4 proxy with HAProxy and nginx; writes its section of docs/benchmarks.md
	go build -o build/bench-l4 ./bench/l4
	build/bench-l4 -report docs/benchmarks.md

bench-l7: packages build ## compare the L7 proxy with nginx, HAProxy and Caddy; writes its section of docs/benchmarks.md
	go build -o build/bench-l7 ./bench/l7
	[ -x build/caddy ] || GOBIN=$(CURDIR)/build go install github.com/caddyserver/caddy/v2/cmd/caddy@latest
	build/bench-l7 -caddy build/caddy -report docs/benchmarks.md

bench-kernel: packages build ## compare the kernel path with forwarding and with proxies; writes its sections of docs/benchmarks.md
	go build -o build/bench-kernel ./bench/kernel
	build/bench-kernel -report docs/benchmarks.md
