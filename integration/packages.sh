#!/bin/sh
# Installs the real servers and clients that the tests and benchmarks run
# against, where they are missing and this user may. Their services are not
# started: the tests run instances of their own. Without a package its tests are
# skipped, by name.
set -eu

packages="openssh-server openssh-client mariadb-server mariadb-client python3-django gunicorn curl iproute2 keepalived tcpdump nginx wrk nghttp2-client procps postgresql redis-server opensmtpd python3-aiosmtpd dnsmasq-base openssl libnginx-mod-stream haproxy apache2-utils php-fpm slowhttptest testssl.sh clang llvm libbpf-dev bpftool"

missing=""
for p in $packages; do
	dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q 'install ok installed' || missing="$missing $p"
done
[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null 2>&1 || [ "$(id -u)" -ne 0 ]; then
	echo "not installed:$missing (install them as root with apt-get; their tests are skipped)"
	exit 0
fi

# While this file exists, dpkg starts no service.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
	trap 'rm -f "$policy"' EXIT
	trap 'exit 130' INT TERM HUP
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod 755 "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
echo "installing:$missing"
# shellcheck disable=SC2086
if ! { apt-get update -qq && apt-get install -y -qq --no-install-recommends $missing >/dev/null; }; then
	echo "could not install:$missing (their tests are skipped)"
	[ "${CI:-}" != true ] || exit 1
fi
