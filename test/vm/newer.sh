#!/bin/bash
# newer.sh OUT: Debian's backported kernel, which mounts layers that are images, as OUT/newer/{vmlinuz,initrd,modules,release}. The package is
# fetched once; the disk is the other machine's, which has the modules of both.
set -eu
here=$(cd "$(dirname "$(readlink -f "$0")")" && pwd)
out=$(mkdir -p "${1:?usage: newer.sh DIR}/newer" && cd "$1/newer" && pwd)
work=$(mktemp -d "$out/work.XXXXXX"); trap 'rm -rf "$work"' EXIT
cd "$work"

if [ ! -e "$out/vmlinuz" ]; then
  # apt with folders and sources of its own: the machine's are left as they are.
  uri=$(apt-get indextargets --format '$(REPO_URI)' 'Codename: bookworm' 'Created-By: Packages' | head -1)
  mkdir -p lists/partial cache/archives/partial packages
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] ${uri:?apt knows no Debian mirror: run apt-get update} bookworm-backports main" >sources.list
  apt=(-o "Dir::Etc::sourcelist=$work/sources.list" -o Dir::Etc::sourceparts=- -o "Dir::State::lists=$work/lists" -o "Dir::Cache=$work/cache" -o APT::Sandbox::User=root)
  apt-get "${apt[@]}" update -q >/dev/null
  package=$(apt-cache "${apt[@]}" depends linux-image-cloud-amd64 | awk '/Depends: linux-image-6/ {print $2; exit}')
  (cd packages && apt-get "${apt[@]}" download -q "${package:?bookworm-backports has no linux-image-cloud-amd64}" >/dev/null)
  dpkg -x packages/*.deb .
  rm -rf "$out/modules"; mkdir "$out/modules"
  cp lib/modules/*/modules.{builtin,builtin.modinfo,order} "$out/modules/"
  for dir in net fs/erofs fs/overlayfs fs/netfs fs/fuse crypto lib drivers/virtio drivers/block/virtio_blk.ko.xz drivers/net/{veth,dummy,tun}.ko.xz drivers/char/hw_random; do
    [ ! -e lib/modules/*/kernel/"$dir" ] || (cd lib/modules/* && cp -r --parents "kernel/$dir" "$out/modules/")
  done
  find "$out/modules" -name '*.ko.xz' -exec xz -d {} + # busybox's modprobe reads none that are compressed
  sed -i 's/\.ko\.xz$/.ko/' "$out/modules/modules.order"
  basename lib/modules/* >"$out/release"
  mv boot/vmlinuz-* "$out/vmlinuz"
fi

mkdir -p boot-fs/{bin,m,dev,proc,root}
cp /bin/busybox boot-fs/bin/
cp "$out/modules/kernel/drivers/block/virtio_blk.ko" boot-fs/m/ # all else that a disk wants is in the kernel
install -m 755 "$here/guest/boot" boot-fs/init
(cd boot-fs && find . | cpio -o -H newc --quiet | gzip -1) >"$out/initrd"
