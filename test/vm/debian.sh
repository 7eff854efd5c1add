#!/bin/bash
# debian.sh OUT: a whole Debian with systemd and its engines' clients, as the disk OUT/debian.img (kept; a changed script, or kernel, builds
# anew). It boots with systemd, or (init=/usr/lib/plain/init) with busybox as the first process and nobody else.
set -eu
here=$(cd "$(dirname "$(readlink -f "$0")")" && pwd)
out=$1
release=$(cat "$out/release")
stamp=$(cat "$0" "$here"/guest/{inittab,start,*.service} "$out/release" <(cd "$out/modules" && find . -name "*.ko" | sort) | sha256sum | cut -c1-16)
[ "$(cat "$out/debian.stamp" 2>/dev/null)" = "$stamp" ] && exit 0
work=$(mktemp -d "$out/debian.XXXXXX"); trap 'rm -rf "$work"' EXIT
cd "$work"
uri=$(apt-get indextargets --format '$(REPO_URI)' 'Codename: bookworm' 'Created-By: Packages' | head -1)
packages=systemd,dbus,dbus-user-session,libpam-systemd,kmod,procps,iproute2,curl,busybox-static,containerd,podman,netavark,crun,conmon,libseccomp2,uidmap,criu,apparmor,strace
if ! debootstrap --variant=minbase --include=$packages bookworm base "${uri:?apt knows no Debian mirror: run apt-get update}" >log 2>&1; then tail -20 log >&2; exit 1; fi
rm -rf base/var/cache/apt/* base/var/lib/apt/lists/* base/usr/share/{doc,man,locale,info}
mkdir -p base/t base/usr/lib/plain "base/usr/lib/modules/$release" base/etc/containers
cp -r "$out/modules/." "base/usr/lib/modules/$release/"; depmod -b base "$release"
# What systemd starts: the agent, and a container engine when somebody asks for it.
install -m 644 "$here/guest/agent.service" base/etc/systemd/system/
printf 'virtio_console\nvirtio_rng\noverlay\n' >base/etc/modules-load.d/guest.conf
on() { mkdir -p "base/etc/systemd/system/$1.wants"; ln -sf "/etc/systemd/system/$2" "base/etc/systemd/system/$1.wants/$2"; }
on multi-user.target agent.service
for unit in containerd.service podman.service podman.socket podman-auto-update.{service,timer} podman-restart.service apt-daily.timer apt-daily-upgrade.timer \
  dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer getty@tty1.service systemd-pstore.service systemd-networkd.service remote-fs.target; do
  rm -f base/etc/systemd/system/*.wants/$unit base/etc/systemd/user/*.wants/$unit
done
for unit in console-getty getty@ serial-getty@ systemd-update-utmp systemd-journal-flush systemd-random-seed; do ln -sf /dev/null "base/etc/systemd/system/$unit.service"; done
echo 0123456789abcdef0123456789abcdef >base/etc/machine-id
echo guest >base/etc/hostname; printf '127.0.0.1 localhost guest\n' >base/etc/hosts; : >base/etc/fstab
# One user, for a service manager of his own.
printf 'user:x:1000:1000::/home/user:/bin/sh\n' >>base/etc/passwd; printf 'user:x:1000:\n' >>base/etc/group; printf 'user:*:19000:0:99999:7:::\n' >>base/etc/shadow
mkdir -p base/home/user base/var/lib/systemd/linger; chown 1000:1000 base/home/user; touch base/var/lib/systemd/linger/user
# Without systemd.
ln base/bin/busybox base/usr/lib/plain/init
install -m 644 "$here/guest/inittab" base/etc/; install -m 755 "$here/guest/start" base/etc/
ln -s /t/agent base/bin/agent
rm -f new.img; truncate -s 3G new.img
mkfs.ext4 -q -d base -E root_owner=0:0,lazy_itable_init=1 new.img
mv new.img "$out/debian.img"; echo "$stamp" >"$out/debian.stamp"
