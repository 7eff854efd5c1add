#!/bin/bash
# Installs with apt what the tests need and this machine lacks: debootstrap and busybox for the images, a real registry, real clients.
set -eu
need=(debootstrap busybox-static python3 docker-registry nftables iproute2 curl procps strace redis-tools postgresql-client gcc libc6-dev libseccomp-dev uidmap erofs-utils pigz zopfli git openssh-client openssh-server skopeo docker-compose ufw firewalld rclone fuse3 rsyslog)
missing=()
for p in "${need[@]}"; do dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing+=("$p"); done
command -v docker >/dev/null || missing+=(docker.io)
[ ${#missing[@]} = 0 ] && exit 0
[ "$(id -u)" = 0 ] || { echo "these packages are missing: ${missing[*]}; install them or run as root" >&2; exit 1; }
export DEBIAN_FRONTEND=noninteractive
# Nothing that is installed for a test may start a service.
policy=/usr/sbin/policy-rc.d
[ -e $policy ] || { printf '#!/bin/sh\nexit 101\n' >$policy; chmod +x $policy; trap 'rm -f $policy' EXIT; }
apt-get update -q >/dev/null
apt-get install -y -q --no-install-recommends -o DPkg::Lock::Timeout=300 "${missing[@]}" >/dev/null
