#!/bin/bash
# tools.sh OUT: a second disk, mounted on /t by the initial file system, with what changes: the project's binaries, the tests of the packages
# that meet the kernel, and the programs that those would build.
set -eu
here=$(cd "$(dirname "$(readlink -f "$0")")" && pwd)
repo=$(cd "$here/../.." && pwd)
out=$1
work=$(mktemp -d "$out/tools.XXXXXX"); trap 'rm -rf "$work"' EXIT
mkdir -p "$work"/t/{bin,tests,programs,images}
cd "$repo"
export CGO_ENABLED=0
cp bin/{oar,wherry,wherryd} "$(command -v docker)" "$work/t/bin/"; cp .cache/images/busybox-1.tar "$work/t/images/"; cp -r dist "$work/t/"
go build -trimpath -ldflags '-s -w' -o "$work/t/agent" ./test/vm/agent
for package in internal/{cgroup,systemd,sysprog,seccomp,ociruntime,network,signals} cmd/oar; do
  name=$(basename $package); mkdir "$work/t/tests/$name"
  go test -c -trimpath -ldflags '-s -w' -o "$work/t/tests/$name/test" ./$package
  [ ! -d $package/testdata ] || cp -r $package/testdata "$work/t/tests/$name/"
  for program in $package/testdata/*/main.go; do
    [ -e "$program" ] || continue
    dir=$(dirname "$program")
    for arch in amd64 386; do GOARCH=$arch go build -trimpath -ldflags '-s -w' -o "$work/t/programs/$(basename "$dir")-$arch" "./$dir"; done
  done
done
gcc -O1 -o "$work/t/programs/oracle" internal/seccomp/testdata/oracle.c -lseccomp
# The tests build programs; there these are built already.
cat >"$work/t/bin/go" <<'GO'
#!/bin/sh
# go build [-flags] -o OUTPUT SOURCE
while [ $# -gt 1 ]; do case $1 in -o) output=$2; shift ;; esac; shift; done
case $1 in .) exec cp /t/bin/oar "$output" ;; *) exec cp "/t/programs/${1##*/}-${GOARCH:-amd64}" "$output" ;; esac
GO
cat >"$work/t/bin/gcc" <<'GCC'
#!/bin/sh
while [ $# -gt 1 ]; do case $1 in -o) output=$2 ;; esac; shift; done
exec cp /t/programs/oracle "$output"
GCC
chmod +x "$work"/t/bin/{go,gcc}
# An OCI bundle's root file system.
mkdir -p "$work"/t/rootfs/{bin,dev,proc,sys,tmp,etc}; cp /bin/busybox "$work/t/rootfs/bin/"
for applet in $(/bin/busybox --list); do [ -e "$work/t/rootfs/bin/$applet" ] || ln "$work/t/rootfs/bin/busybox" "$work/t/rootfs/bin/$applet"; done
rm -f "$out/tools.img"; truncate -s 512M "$out/tools.img"
mkfs.ext4 -q -O ^has_journal -d "$work/t" -E root_owner=0:0 "$out/tools.img"
