package vm

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// TestConfinement runs what wants Debian's kernel: AppArmor, and a criu that understands the kernel.
func TestConfinement(t *testing.T) {
	t.Parallel()
	m := bootDebian(t, "/usr/lib/plain/init")
	m.run("mount -t securityfs securityfs /sys/kernel/security && mkdir -p /b && cp -a /t/rootfs /b/root")
	for _, step := range []struct {
		name string
		run  func(*machine)
	}{
		{"AppArmor profiles", profiled}, {"checkpoint and restore", checkpointed}, {"images are not believed", doubted}, {"earlier images, an empty network", predumped},
		{"a network that it joins", joinedNetwork},
		{"a privilege that criu forgets", forgetful},
	} {
		t.Run(step.name, func(t *testing.T) { m.t = t; step.run(m) })
	}
	m.t = t
	m.cut()
}

// profiled: a profile confines the first process and execs, another one only its exec; one that is not loaded is told.
func profiled(m *machine) {
	m.run(`cat >/tmp/profiles <<'END'
profile oar-one flags=(attach_disconnected,mediate_deleted) { file, signal, capability, deny /tmp/secret rw, }
profile oar-two flags=(attach_disconnected,mediate_deleted) { file, signal, deny /tmp/other rw, }
END
		apparmor_parser -r -W /tmp/profiles; echo hidden >/b/root/tmp/secret; echo hidden >/b/root/tmp/other`)
	bundle(m, "one", func(s *specs.Spec) { s.Root.Path, s.Process.ApparmorProfile = "/b/root", "oar-one" }, "sleep", "1000")
	m.run("export PATH=/t/bin:$PATH; oar create -b /b/one one </dev/null >/tmp/one 2>&1; oar start one")
	look := " sh -c 'cut -d\" \" -f1 /proc/self/attr/current; cat /tmp/secret /tmp/other 2>&1' | tr '\n' ' '"
	m.want("oar-one", "cut -d' ' -f1 /proc/$(/t/bin/oar list -f json | sed 's/.*\"pid\":\\([0-9]*\\).*/\\1/')/attr/current")
	m.want("oar-one cat: can't open '/tmp/secret': Permission denied hidden", "/t/bin/oar exec one"+look)
	m.want("oar-two hidden cat: can't open '/tmp/other': Permission denied", "/t/bin/oar exec --apparmor oar-two one"+look)
	m.want("unconfined hidden hidden", "/t/bin/oar exec --apparmor unconfined one"+look)
	if out, code := m.try("/t/bin/oar exec --apparmor oar-none one true"); code == 0 || !strings.Contains(out, "oar-none: no such file or directory: it is not loaded") {
		m.t.Errorf("a profile that is not loaded: %d, %s", code, out)
	}
	m.run("/t/bin/oar delete --force one; rm /b/root/tmp/secret /b/root/tmp/other")
}

// counter counts on its standard output, under a profile of system calls and with what a container has to hide and protect.
func counter(s *specs.Spec) {
	s.Root.Path, s.Root.Readonly = "/b/root", false
	s.Hostname = "counter"
	s.Linux.MaskedPaths, s.Linux.ReadonlyPaths = []string{"/proc/keys", "/proc/acpi"}, []string{"/proc/sys"}
	s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: "network"}, specs.LinuxNamespace{Type: "uts"})
	s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"swapon"}, Action: specs.ActErrno}}}
	s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: []string{"CAP_KILL"}, Permitted: []string{"CAP_KILL"}, Effective: []string{"CAP_KILL"}}
	s.Mounts = append(s.Mounts, specs.Mount{Destination: "/dev/shm", Type: "tmpfs", Options: []string{"nosuid", "nodev"}},
		specs.Mount{Destination: "/etc/host", Type: "bind", Source: "/etc", Options: []string{"bind", "ro"}})
}

var counting = []string{"sh", "-c", "i=0; echo kept >/dev/shm/file; while :; do i=$((i+1)); echo $i; sleep 0.1; done"}

// piped is a shell function that runs a command with a pipe, read by somebody else, as its output.
const piped = `export PATH=/t/bin:$PATH
piped() { to=$1; shift; rm -f /tmp/pipe; mkfifo /tmp/pipe; cat /tmp/pipe >$to 2>/dev/null </dev/null & "$@" </dev/null >/tmp/pipe 2>/tmp/errors || { cat /tmp/errors; return 1; }; }
`

func checkpointed(m *machine) {
	bundle(m, "count", counter, counting...)
	m.run(piped + "piped /tmp/before oar create -b /b/count count; oar start count")
	m.eventually("test $(tail -n 1 /tmp/before) -gt 5")
	m.run("/t/bin/oar checkpoint --image-path /tmp/left --work-path /tmp/work --leave-running count; test -e /tmp/work/dump.log")
	m.want("running", "/t/bin/oar state count | sed -n 's/.*\"status\": \"\\(.*\\)\",/\\1/p'")
	m.run("/t/bin/oar checkpoint --image-path /tmp/images count")
	m.want("", "/t/bin/oar list -q; ls -d /sys/fs/cgroup/oar/count 2>/dev/null || true")
	m.run(piped + "piped /tmp/after oar restore --detach --image-path /tmp/images -b /b/count --pid-file /tmp/pid again")
	m.eventually("test $(wc -l </tmp/after) -gt 3")
	if last, next := number(m, "tail -n 1 /tmp/before"), number(m, "head -n 1 /tmp/after"); next != last+1 {
		m.t.Errorf("it counted to %d and goes on with %d", last, next)
	}
	m.want("kept counter 2 0000000000000020", "/t/bin/oar exec again sh -c 'cat /dev/shm/file; hostname; sed -n \"s/^Seccomp:\t//p; s/^CapBnd:\t//p\" /proc/1/status' | xargs | awk '{print $1, $2, $4, $3}'")
	m.want("0::/oar/again", "cat /proc/$(cat /tmp/pid)/cgroup")
	m.run("/t/bin/oar pause again && /t/bin/oar resume again && /t/bin/oar kill again KILL")
	m.eventually("/t/bin/oar delete again")
	// In the foreground it ends as the program does; the same images may be used again.
	out, code := m.try(piped + ": >/tmp/said; (until test -s /tmp/said; do sleep 0.1; done; oar kill again KILL) & oar restore --image-path /tmp/images -b /b/count again </dev/null 2>&1 | tee /tmp/said; exit ${PIPESTATUS:-0}")
	if !strings.Contains(out, "\n") || code != 0 {
		m.t.Errorf("in the foreground: %d, %q", code, out)
	}
	m.want("", "/t/bin/oar list -q; ls -d /sys/fs/cgroup/oar/again 2>/dev/null || true")
}

// doubted: where the bundle says more than the images, nothing runs and nothing is left.
func doubted(m *machine) {
	for words, change := range map[string]func(*specs.Spec){
		"its seccomp filter":             func(s *specs.Spec) { s.Linux.Seccomp.Syscalls[0].Names = []string{"mount"} },
		"capabilities":                   func(s *specs.Spec) { s.Process.Capabilities = nil },
		"no_new_privs":                   func(s *specs.Spec) { s.Process.NoNewPrivileges = true },
		"/proc/version is not protected": func(s *specs.Spec) { s.Linux.MaskedPaths = append(s.Linux.MaskedPaths, "/proc/version") },
		"/proc/tty is not protected":     func(s *specs.Spec) { s.Linux.ReadonlyPaths = append(s.Linux.ReadonlyPaths, "/proc/tty") },
		"the network namespace":          func(s *specs.Spec) { s.Linux.Namespaces = slices.Delete(s.Linux.Namespaces, 4, 5) },
		"lacks the option ro":            func(s *specs.Spec) { s.Mounts[len(s.Mounts)-2].Options = []string{"ro"} },
		"the mount on /dev/shm":          func(s *specs.Spec) { s.Mounts = append(s.Mounts[:len(s.Mounts)-2], s.Mounts[len(s.Mounts)-1]) },
	} {
		bundle(m, "doubt", func(s *specs.Spec) { counter(s); change(s) }, counting...)
		out, code := m.try("rm -f /tmp/never; " + piped + "piped /tmp/never oar restore --detach --image-path /tmp/images -b /b/doubt doubt")
		if code == 0 || !strings.Contains(out, words) || !strings.Contains(out, "which was ended") {
			m.t.Errorf("%s: %d, %s", words, code, out)
		}
		m.want("", "cat /tmp/never; /t/bin/oar list -q; ls -d /sys/fs/cgroup/oar/doubt 2>/dev/null || true")
	}
	out, code := m.try("cp -r /tmp/images /tmp/broken; : >/tmp/broken/mountpoints-*.img; rm /tmp/broken/core-1.img; /t/bin/oar restore --detach --image-path /tmp/broken -b /b/count broken </dev/null")
	if code == 0 || !strings.Contains(out, "criu restore: exit status 1: ") || !strings.Contains(out, "/tmp/broken/restore.log") {
		m.t.Errorf("broken images: %d, %s", code, out)
	}
	m.want("", "/t/bin/oar list -q; ls -d /sys/fs/cgroup/oar/broken 2>/dev/null || true")
}

func predumped(m *machine) {
	bundle(m, "count", counter, counting...)
	m.run("rm -f /tmp/before /tmp/after; " + piped + "piped /tmp/before oar create -b /b/count count; oar start count")
	m.eventually("test $(tail -n 1 /tmp/before) -gt 5")
	m.run("mkdir /tmp/chain; /t/bin/oar checkpoint --pre-dump --image-path /tmp/chain/first count")
	m.run("/t/bin/oar checkpoint --parent-path ../first --image-path /tmp/chain/last --empty-ns network --manage-cgroups-mode full --file-locks --tcp-established --ext-unix-sk count")
	m.run("test -L /tmp/chain/last/parent")
	m.run(piped + "piped /tmp/after oar restore --detach --image-path /tmp/chain/last -b /b/count --empty-ns network --tcp-established --ext-unix-sk --file-locks count")
	m.eventually("test $(wc -l </tmp/after) -gt 3")
	m.run("/t/bin/oar delete --force count")
}

// joinedNetwork: the network namespace is the bundle's to name, at the restore too.
func joinedNetwork(m *machine) {
	network := func(name string) func(*specs.Spec) {
		return func(s *specs.Spec) {
			counter(s)
			s.Linux.Namespaces[4].Path = "/run/netns/" + name
		}
	}
	m.run("ip netns add first && ip netns add second")
	bundle(m, "joined", network("first"), counting...)
	m.run(piped + "piped /tmp/before oar create -b /b/joined joined; oar start joined")
	m.run("/t/bin/oar checkpoint --image-path /tmp/joined joined")
	bundle(m, "joined", network("second"), counting...)
	m.run(piped + "piped /tmp/after oar restore --detach --image-path /tmp/joined -b /b/joined --pid-file /tmp/pid joined")
	m.want("same", "test $(stat -Lc %i /run/netns/second) = $(stat -Lc %i /proc/$(cat /tmp/pid)/ns/net) && echo same")
	m.run("/t/bin/oar delete --force joined; ip netns del first; ip netns del second")
}

func forgetful(m *machine) {
	bundle(m, "count", func(s *specs.Spec) { counter(s); s.Process.NoNewPrivileges = true }, counting...)
	m.run(piped + "piped /tmp/before oar create -b /b/count count; oar start count")
	out, code := m.try("/t/bin/oar checkpoint --image-path /tmp/forgotten count")
	if code == 0 || !strings.Contains(out, "no_new_privs") || strings.Count(out, "\n") != 1 {
		m.t.Errorf("%d, %s", code, out)
	}
	m.want("running", "/t/bin/oar state count | sed -n 's/.*\"status\": \"\\(.*\\)\",/\\1/p'")
	m.run("/t/bin/oar delete --force count; ! test -e /tmp/forgotten")
}

// TestInitialRAMDisk runs the runtime and the engine on a host whose root is the initial file system, which pivot_root(2) does not take away.
func TestInitialRAMDisk(t *testing.T) {
	t.Parallel()
	m := bootFrom(t, t.TempDir(), "stay", "file="+filepath.Join(built(t), "tools.img")+",if=virtio,format=raw,readonly=on",
		"file="+filepath.Join(built(t), "disk.img")+",if=virtio,format=raw,snapshot=on")
	m.want("rootfs", "/t/rootfs/bin/awk '$2 == \"/\" {print $1}' /proc/mounts | /t/rootfs/bin/head -n 1")
	bundle(m, "box", nil, "sh", "-c", "echo $(ls /); cut -d' ' -f5 /proc/self/mountinfo | xargs; cat /proc/1/comm")
	out, code := m.try("/t/bin/oar run -b /b/box box </dev/null")
	if code == 0 || !strings.Contains(out, "--no-pivot is needed") {
		t.Errorf("with a pivot: %d, %s", code, out)
	}
	m.want("bin dev etc proc sys tmp\n/ /proc /dev /sys /sys/fs/cgroup\ncat", "/t/bin/oar run --no-pivot -b /b/box box </dev/null")
	bundle(m, "sleep", nil, "sleep", "1000")
	m.run("/t/bin/oar run --no-pivot --detach -b /b/sleep box </dev/null >/tmp/out 2>&1")
	m.want("1 sleep", "/t/bin/oar exec box sh -c 'echo $(ls -d /proc/1 | wc -l) $(cat /proc/1/comm)'")
	// Below the container's root there is no way to the kernel.
	m.want("host", "nsenter -m -t $(/t/bin/oar state box | sed -n 's/.*\"pid\": \\([0-9]*\\).*/\\1/p') /bin/busybox umount -l / && "+
		"nsenter -m -t $(/t/bin/oar state box | sed -n 's/.*\"pid\": \\([0-9]*\\).*/\\1/p') /bin/busybox sh -c 'test -x /init && echo host; /bin/busybox ls -A /proc /sys' | grep -v : | xargs")
	m.run("/t/bin/oar delete --force box")
	engineOnInitialRoot(m)
	m.cut()
}

// engineOnInitialRoot: the engine's containers need no pivot, and neither they nor who has more rights finds the host below their root.
func engineOnInitialRoot(m *machine) {
	m.run(`export PATH=/t/bin:/bin:/t/rootfs/bin; mkdir -p /d /lib /run /sbin && mount -t ext4 /dev/vdb /d && ln -s /d/lib/modules /lib/modules && ln -s /bin/busybox /sbin/modprobe
		for module in overlay bridge veth nf_tables; do modprobe $module; done
		wherryd --root /d/wherry --host $WHERRY_HOST >/d/log 2>&1 </dev/null &
		i=0; until /t/bin/wherry version >/dev/null 2>&1 || [ $i = 300 ]; do i=$((i+1)); sleep 0.1; done; cat /d/log; /t/bin/wherry load -q -i /t/images/busybox-1.tar`)
	const dig = `"umount -l / 2>/dev/null; cd /; for at in / .. /cover; do test -e \$at/init && echo host; done; echo below"`
	for _, options := range []string{"", "--userns host", "--privileged", "--privileged --pid host"} {
		m.want("below", "/t/bin/wherry run --rm --network none "+options+" busybox:1 sh -c "+dig)
	}
	m.run("/t/bin/wherry run -d --name web --network none busybox:1 sleep 1000")
	m.want("here", "/t/bin/wherry exec web echo here")
	m.want("", "/t/rootfs/bin/cut -d' ' -f5 /proc/$(/t/bin/wherry inspect -f '{{.State.Pid}}' web)/mountinfo | grep -x -e /d -e /t || true") // what is mounted on the host
	m.run("/t/bin/wherry rm -f web")
}

// TestSELinux: labels of processes are the kernel's. It has no policy here, so it knows its own first labels only, and permits everything.
func TestSELinux(t *testing.T) {
	m := bootDebian(t, "/usr/lib/plain/init security=selinux selinux=1")
	m.run("mount -t selinuxfs selinuxfs /sys/fs/selinux")
	bundle(m, "box", func(s *specs.Spec) { s.Process.SelinuxLabel = "port" }, "sh", "-c", "cat /proc/self/attr/current; sleep 1000")
	m.run("export PATH=/t/bin:$PATH; oar create -b /b/box box </dev/null >/tmp/box 2>&1; oar start box")
	m.eventually("grep -q port /tmp/box")
	m.want("port", "tr -d '\\0' </proc/$(/t/bin/oar state box | sed -n 's/.*\"pid\": \\([0-9]*\\).*/\\1/p')/attr/current")
	m.want("port", "/t/bin/oar exec box cat /proc/self/attr/current | tr -d '\\0'")
	m.want("node", "/t/bin/oar exec --process-label node box cat /proc/self/attr/current | tr -d '\\0'")
	m.want("kernel", "tr -d '\\0' </proc/self/attr/current")
	m.run("/t/bin/oar delete --force box")
	m.cut()
}
