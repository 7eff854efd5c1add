#!/bin/bash
# Builds below $1 what the virtual machine boots: Debian's own kernel with its modules (fetched once), an initial file system that finds
# the disk, and the disk's first state: busybox, the docker command line, a registry, the project's binaries and a test image; the disks
# of debian.sh, tools.sh and arm64.sh, and the kernel of newer.sh. No mounts.
set -eu
here=$(cd "$(dirname "$(readlink -f "$0")")" && pwd)
repo=$(cd "$here/../.." && pwd)
out=$(mkdir -p "${1:?usage: build.sh DIR}" && cd "$1" && pwd)
need=(qemu-system-x86 qemu-system-arm busybox-static cpio kmod xz-utils e2fsprogs docker-registry debootstrap gcc libc6-dev libseccomp-dev)
missing=()
for p in "${need[@]}"; do dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing+=("$p"); done
command -v docker >/dev/null || missing+=(docker.io)
if [ ${#missing[@]} != 0 ]; then
  [ "$(id -u)" = 0 ] || { echo "these packages are missing: ${missing[*]}; install them or run as root" >&2; exit 1; }
  # Nothing that is installed for a test may start a service.
  policy=/usr/sbin/policy-rc.d
  [ -e $policy ] || { printf '#!/bin/sh\nexit 101\n' >$policy; chmod +x $policy; trap 'rm -f $policy' EXIT; made=1; }
  apt-get update -q >/dev/null
  DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends -o DPkg::Lock::Timeout=300 "${missing[@]}" >/dev/null
  [ -z "${made:-}" ] || rm -f $policy
fi

if [ ! -e "$out/vmlinuz" ] || [ ! -e "$out/modules/kernel/drivers/net/ipvlan" ]; then
  rm -rf "$out"/kernel.*
  work=$(mktemp -d "$out/kernel.XXXXXX")
  package=$(apt-cache depends linux-image-cloud-amd64 | awk '/Depends: linux-image-6/ {print $2; exit}')
  [ -n "$package" ] || { apt-get update -q >/dev/null; package=$(apt-cache depends linux-image-cloud-amd64 | awk '/Depends: linux-image-6/ {print $2; exit}'); }
  (cd "$work" && apt-get download -q "${package:?apt knows no linux-image-cloud-amd64}" >/dev/null 2>&1 && dpkg -x "$package"*.deb .)
  rm -rf "$out/modules"; mkdir "$out/modules"
  # Only what an engine and this machine can want: the drivers of real hardware are three quarters of all.
  cp "$work"/lib/modules/*/modules.{builtin,builtin.modinfo,order} "$out/modules/"
  for dir in net fs crypto lib block drivers/virtio drivers/block drivers/net/veth.ko drivers/net/dummy.ko drivers/net/tun.ko drivers/net/macvlan.ko drivers/net/ipvlan drivers/char/virtio_console.ko drivers/char/hw_random; do
    (cd "$work"/lib/modules/* && cp -r --parents "kernel/$dir" "$out/modules/")
  done
  basename "$work"/lib/modules/* >"$out/release"
  mv "$work"/boot/vmlinuz-* "$out/vmlinuz"
  rm -rf "$work"
fi
release=$(cat "$out/release")

"$here/debian.sh" "$out"
"$here/tools.sh" "$out"
"$here/arm64.sh" "$out"
"$here/newer.sh" "$out"
newer=$(cat "$out/newer/release")

work=$(mktemp -d "$out/work.XXXXXX"); trap 'rm -rf "$work"' EXIT
cd "$work"; mkdir -p boot/{bin,m,dev,proc,root} disk/{bin,sbin,dev,proc,sys,run,tmp,root,images,lib64,etc,usr/bin,var/lib,var/log,"lib/modules/$release","lib/modules/$newer"}
cp /bin/busybox boot/bin/
# In the order in which they need each other.
for m in virtio/virtio_ring virtio/virtio virtio/virtio_pci_modern_dev virtio/virtio_pci_legacy_dev virtio/virtio_pci block/virtio_blk char/virtio_console; do cp "$out/modules/kernel/drivers/$m.ko" boot/m/; done
install -m 755 "$here/guest/boot" boot/init
(cd boot && find . | cpio -o -H newc --quiet | gzip -1) >"$out/initrd"

cp /bin/busybox disk/bin/
for applet in $(/bin/busybox --list); do [ -e "disk/bin/$applet" ] || ln disk/bin/busybox "disk/bin/$applet"; done
ln -s /bin/busybox disk/sbin/modprobe; ln -s /bin/busybox disk/sbin/init
cp -r "$out/modules/." "disk/lib/modules/$release/"; depmod -b disk "$release"
cp -r "$out/newer/modules/." "disk/lib/modules/$newer/"; depmod -b disk "$newer"
cp "$here/guest/inittab" disk/etc/; install -m 755 "$here/guest/start" disk/etc/; install -m 755 "$here/guest/engine" disk/bin/
printf 'root:x:0:0:root:/root:/bin/sh\n' >disk/etc/passwd; printf 'root:x:0:\n' >disk/etc/group
printf '127.0.0.1 localhost\n' >disk/etc/hosts; printf 'nameserver 127.0.0.1\n' >disk/etc/resolv.conf
printf 'version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\nstorage: {filesystem: {rootdirectory: /var/lib/registry}}\nhttp: {addr: "127.0.0.1:5000"}\n' >disk/etc/registry.yml
cp "$repo"/bin/{wherry,wherryd,wherry-build,wherry-verify,oar} "$(command -v docker)" "$(command -v docker-registry)" disk/bin/
# The registry is the one program here that wants shared libraries.
ldd "$(command -v docker-registry)" | grep -o '/[^ ]*' | while read -r lib; do cp -L --parents "$lib" disk/; done
(cd "$repo" && CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o "$work/disk/bin/agent" ./test/vm/agent)
cp "$repo"/.cache/images/busybox-1.tar disk/images/
rm -f "$out/disk.img"; truncate -s 3G "$out/disk.img"
mkfs.ext4 -q -d disk -E root_owner=0:0,lazy_itable_init=1 "$out/disk.img"
