#!/bin/bash
# Fetches the peers that Debian has (docker.io, podman, crun, runc and what they call) and unpacks them below $P; starts nothing.
set -eu
P=${P:-/var/tmp/wherry-bench}; mkdir -p "$P/bin" "$P/deb"
[ -e "$P/peers" ] && [ -x "$P/bin/ctr" ] && command -v iperf3 >/dev/null && exit 0
export DEBIAN_FRONTEND=noninteractive
policy=/usr/sbin/policy-rc.d # nothing that is installed may start a service
[ -e $policy ] || { printf '#!/bin/sh\nexit 101\n' >$policy; chmod +x $policy; trap 'rm -f $policy' EXIT; }
apt-get update -q >/dev/null
apt-get install -y -q --no-install-recommends -o DPkg::Lock::Timeout=300 crun runc conmon netavark aardvark-dns iptables docker-registry libsubid4 libgpgme11 libdevmapper1.02.1 \
  python3 catatonit zstd iperf3 golang-github-containers-common golang-github-containers-image >/dev/null
cd "$P/deb"
apt-get download -q docker.io containerd podman >/dev/null
for f in *.deb; do dpkg -x "$f" unpacked; done
for b in dockerd docker-proxy docker-init containerd containerd-shim-runc-v2 ctr podman; do
  for d in sbin bin; do [ ! -x unpacked/usr/$d/$b ] || cp unpacked/usr/$d/$b "$P/bin/"; done
done
rm -rf unpacked ./*.deb
touch "$P/peers"
