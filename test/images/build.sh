#!/bin/bash
# Builds the images that the end-to-end tests run, from Debian's packages, as archives below $1 (kept between runs; a changed script
# builds anew): busybox, debian, nginx, redis, postgres (tags 1 and 2), python, node and web (tags 1 and 2). Where the world has an official
# image, ours has an entrypoint that does what that one's does.
set -eu
here=$(cd "$(dirname "$(readlink -f "$0")")" && pwd)
out=$(mkdir -p "${1:?usage: build.sh DIR}" && cd "$1" && pwd)
stamp=$(cat "$0" "$here"/*.json "$here"/files/* "$here"/../mkimage/*.go | sha256sum | cut -c1-16)
[ "$(cat "$out/stamp" 2>/dev/null)" = "$stamp" ] && exit 0
if [ -z "${IN_NS:-}" ]; then
  (cd "$here/../.." && CGO_ENABLED=0 go build -o "$out/mkimage" ./test/mkimage)
  exec env IN_NS=1 unshare -m --propagation private "$here/build.sh" "$out"
fi
work=$(mktemp -d "$out/work.XXXXXX"); trap 'umount -R "$work/merged" 2>/dev/null || true; rm -rf "$work"' EXIT
cd "$work"; mkdir merged
image() { # name:tag config layer-dir...
  local name=$1 config=$2; shift 2
  "$out/mkimage" -o "$out/${name/:/-}.tar" -t "docker.io/library/$name" -config "$here/$config" "$@"
}

# busybox: one static binary with its applets as hard links.
mkdir -p bb/{bin,etc,root,proc,sys,dev,var/www}; mkdir -m 1777 bb/tmp
cp /bin/busybox bb/bin/
for applet in $(/bin/busybox --list); do [ -e "bb/bin/$applet" ] || ln bb/bin/busybox "bb/bin/$applet"; done
printf 'root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/:/bin/false\nwww:x:1000:1000:www:/var/www:/bin/sh\n' >bb/etc/passwd
printf 'root:x:0:\ndaemon:x:1:\nwww:x:1000:\nextra:x:2000:www\n' >bb/etc/group
image busybox:1 busybox.json bb

# The Debian base: the machine's own mirror, through debootstrap.
uri=$(apt-get indextargets --format '$(REPO_URI)' 'Codename: bookworm' 'Created-By: Packages' | head -1)
if ! debootstrap --variant=minbase --include=procps,iproute2,gosu,ca-certificates,libcap2-bin,iputils-ping bookworm base "${uri:?apt knows no Debian mirror: run apt-get update}" >log 2>&1; then tail -20 log >&2; exit 1; fi
rm -rf base/var/cache/apt/*.bin base/var/cache/apt/archives/*.deb base/var/lib/apt/lists/* base/var/log/*.log base/var/log/apt
image debian:12 debian.json base

layer() { # new-dir packages extra-command : install over the base, keep what changed
  mkdir -p "$1" "$1.work"
  mount -t overlay overlay -o "lowerdir=base,upperdir=$1,workdir=$1.work" merged
  mount -t proc proc merged/proc; mount -t tmpfs tmp merged/tmp; mount -t tmpfs run merged/run
  mount -t tmpfs cache merged/var/cache; mkdir -p merged/var/cache/apt/archives/partial merged/var/cache/debconf
  mount -t tmpfs policy merged/usr/local/sbin
  printf '#!/bin/sh\nexit 101\n' >merged/usr/local/sbin/policy-rc.d; chmod +x merged/usr/local/sbin/policy-rc.d
  for d in /etc/apt /var/lib/apt/lists /usr/share/keyrings; do mount --bind $d merged$d; done
  [ -e merged/etc/resolv.conf ] || touch merged/etc/resolv.conf
  mount --bind /etc/resolv.conf merged/etc/resolv.conf
  if ! DEBIAN_FRONTEND=noninteractive chroot merged sh -ec "apt-get install -y --no-install-recommends $2; $3" >log 2>&1; then tail -20 log >&2; exit 1; fi
  umount -R merged
  rm -rf "$1.work" "$1"/var/log/apt "$1"/var/log/dpkg.log
}
script() { mkdir -p "$1/usr/local/bin"; install -m 755 "$here/files/$2" "$1/usr/local/bin/$2"; }

layer nginx nginx-light 'ln -sf /dev/stdout /var/log/nginx/access.log; ln -sf /dev/stderr /var/log/nginx/error.log; echo "hello from nginx" >/var/www/html/index.html'
script nginx nginx-entrypoint
mkdir -p nginx/docker-entrypoint.d; install -m 755 "$here/files/port.sh" nginx/docker-entrypoint.d/
image nginx:1 nginx.json base nginx
layer redis redis-server ':'
script redis redis-entrypoint
image redis:1 redis.json base redis
layer postgres 'postgresql-15' 'rm -rf /var/lib/postgresql/15/main /etc/postgresql/15/main'
script postgres postgres-entrypoint
image postgres:1 postgres.json base postgres
mkdir -p upgrade/etc; echo 2 >upgrade/etc/postgres-image
image postgres:2 postgres.json base postgres upgrade
layer python 'python3-minimal libpython3-stdlib' ':'
image python:1 python.json base python
# Debian's own, wherever else the machine has Node from; without what it only recommends.
layer node 'nodejs=18.*' 'useradd -m -u 1000 node'
script node node-entrypoint
mkdir -p node/app; install -m 644 "$here/files/server.js" node/app/
image node:1 node.json base node
for v in 1 2; do
  mkdir -p web$v/app; install -m 644 "$here/files/app.py" web$v/app/; echo "version $v" >web$v/app/VERSION
  image web:$v web.json base python web$v
done
echo "$stamp" >"$out/stamp"
