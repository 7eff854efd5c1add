#!/bin/bash
# arm64.sh OUT: what the virtual machine of the other architecture boots: Debian's kernel and busybox for arm64, and the project compiled for it,
# as OUT/arm64/{vmlinuz,initrd,disk.img}. The packages are fetched once.
set -eu
here=$(cd "$(dirname "$(readlink -f "$0")")" && pwd)
repo=$(cd "$here/../.." && pwd)
out=$(mkdir -p "${1:?usage: arm64.sh DIR}/arm64" && cd "$1/arm64" && pwd)
work=$(mktemp -d "$out/work.XXXXXX"); trap 'rm -rf "$work"' EXIT
cd "$work"

if [ ! -e "$out/vmlinuz" ]; then
  # apt with folders of its own, for the other architecture: the machine's are left as they are.
  mkdir -p apt/etc/apt apt/var/lib/apt/lists/partial apt/var/cache/apt/archives/partial apt/var/lib/dpkg packages
  : >apt/var/lib/dpkg/status; cp -r /etc/apt/. apt/etc/apt/
  printf 'Dir "%s/apt";\nAPT::Architecture "arm64";\nAPT::Architectures "arm64";\nAPT::Sandbox::User "root";\n' "$work" >apt.conf
  apt-get -c apt.conf update -q >/dev/null
  package=$(apt-cache -c apt.conf depends linux-image-cloud-arm64 | awk '/Depends: linux-image-6/ {print $2; exit}')
  (cd packages && apt-get -c ../apt.conf download -q "${package:?apt knows no linux-image-cloud-arm64}" busybox-static >/dev/null)
  for p in packages/*.deb; do dpkg -x "$p" .; done
  rm -rf "$out/modules"; mkdir "$out/modules"
  cp lib/modules/*/modules.{builtin,builtin.modinfo,order} "$out/modules/"
  for dir in net fs/overlayfs fs/ext4 fs/jbd2 fs/mbcache.ko crypto lib drivers/virtio drivers/block/virtio_blk.ko drivers/net/veth.ko drivers/char/virtio_console.ko drivers/char/hw_random; do
    [ ! -e lib/modules/*/kernel/"$dir" ] || (cd lib/modules/* && cp -r --parents "kernel/$dir" "$out/modules/")
  done
  basename lib/modules/* >"$out/release"
  install -m 755 bin/busybox "$out/busybox"
  mv boot/vmlinuz-* "$out/vmlinuz"
fi
release=$(cat "$out/release")

# The emulator of its programs for the machine of this architecture, out of the package that has one for each.
if [ ! -e "$out/qemu-aarch64-static" ]; then
  (cd "$work" && apt-get download -q -o APT::Sandbox::User=root qemu-user-static >/dev/null && dpkg --fsys-tarfile qemu-user-static_*.deb | tar -xf - ./usr/bin/qemu-aarch64-static)
  install -m 755 "$work/usr/bin/qemu-aarch64-static" "$out/qemu-aarch64-static.new" && mv "$out/qemu-aarch64-static.new" "$out/qemu-aarch64-static"
fi

mkdir -p boot-fs/{bin,m,dev,proc,root} disk/{bin,sbin,dev,proc,sys,run,tmp,root,srv,etc,usr/bin,var/lib,var/log,"lib/modules/$release"} base/{bin,etc,root,proc,sys,dev,tmp}
cp "$out/busybox" boot-fs/bin/busybox
find "$out/modules" -name '*.ko' | grep -E '/(virtio[a-z_]*|ext4|jbd2|mbcache|crc16|crc32c_generic|libcrc32c)\.ko$' | xargs -I{} cp {} boot-fs/m/
sed "s/^for m in .*/for i in 1 2 3 4; do for m in \/m\/*.ko; do \$b insmod \$m 2>\/dev\/null; done; done/" "$here/guest/boot" >boot-fs/init; chmod 755 boot-fs/init
(cd boot-fs && find . | cpio -o -H newc --quiet | gzip -1) >"$out/initrd"

for root in disk base; do
  cp "$out/busybox" $root/bin/busybox
  for applet in $(/bin/busybox --list); do [ -e "$root/bin/$applet" ] || ln $root/bin/busybox "$root/bin/$applet"; done
  printf 'root:x:0:0:root:/root:/bin/sh\n' >$root/etc/passwd; printf 'root:x:0:\n' >$root/etc/group
done
tar -C base -cf disk/root/base.tar .
ln -s /bin/busybox disk/sbin/modprobe; ln -s /bin/busybox disk/sbin/init
cp -r "$out/modules/." "disk/lib/modules/$release/"; depmod -b disk "$release"
cp "$here/guest/inittab" disk/etc/; install -m 755 "$here/guest/start" disk/etc/; install -m 755 "$here/guest/engine" disk/bin/
printf '127.0.0.1 localhost\n' >disk/etc/hosts; printf 'nameserver 127.0.0.1\n' >disk/etc/resolv.conf
export GOARCH=arm64 CGO_ENABLED=0
cd "$repo"
go build -trimpath -ldflags '-s -w' -o "$work/disk/bin/" ./cmd/wherry ./cmd/wherryd ./test/vm/agent
go build -trimpath -ldflags '-s -w -E oar_entry' -o "$work/disk/bin/" ./cmd/oar
for p in sysprog threads; do go test -c -trimpath -ldflags '-s -w' -o "$work/disk/root/$p.test" "./internal/$p"; done
cd "$work"
rm -f "$out/disk.img"; truncate -s 1G "$out/disk.img"
mkfs.ext4 -q -d disk -E root_owner=0:0,lazy_itable_init=1 "$out/disk.img"
