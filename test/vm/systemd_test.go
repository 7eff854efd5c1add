package vm

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// TestSystemd runs the runtime where systemd is the first process and owns all control groups: containers are in scopes that it makes.
func TestSystemd(t *testing.T) {
	t.Parallel()
	m := bootDebian(t, "/lib/systemd/systemd")
	m.run("systemctl start dbus.socket")
	for _, step := range []struct {
		name string
		run  func(*machine)
	}{
		{"a scope with limits", scoped}, {"new limits", scopeUpdated}, {"systemd writes its limits again", reloaded}, {"exec, pause, ps", scopeEntered},
		{"the end", scopeGone}, {"groups made inside", scopeNested}, {"annotations", annotated}, {"a start that fails", scopeFailed},
		{"podman", podman}, {"containerd", containerd}, {"a user's own manager", userScope}, {"a user's containers", userContainers}, {"a user's scopes", userScopes},
		{"the engine", engineScope}, {"the end of the host", hostStops},
	} {
		t.Run(step.name, func(t *testing.T) { m.t = t; step.run(m) })
	}
	m.t = t
	m.cut()
}

func ptr[T any](v T) *T { return &v }

// bundle writes one to /b/NAME in the machine.
func bundle(m *machine, name string, change func(*specs.Spec), args ...string) {
	m.t.Helper()
	s := &specs.Spec{Version: specs.Version, Root: &specs.Root{Path: "/t/rootfs", Readonly: true},
		Process: &specs.Process{Args: args, Cwd: "/", Env: []string{"PATH=/bin"}},
		Mounts: []specs.Mount{{Destination: "/proc", Type: "proc"}, {Destination: "/dev", Type: "tmpfs"},
			{Destination: "/sys", Type: "sysfs"}, {Destination: "/sys/fs/cgroup", Type: "cgroup", Options: []string{"rw"}}},
		Linux: &specs.Linux{Resources: &specs.LinuxResources{}, Namespaces: []specs.LinuxNamespace{{Type: "pid"}, {Type: "mount"}, {Type: "ipc"}, {Type: "cgroup"}}}}
	if change != nil {
		change(s)
	}
	b, err := json.Marshal(s)
	if err != nil {
		m.t.Fatal(err)
	}
	m.run("mkdir -p /b/" + name + " && cat >/b/" + name + "/config.json <<'END'\n" + string(b) + "\nEND")
}

// show asks systemd for a unit's properties, one after another.
func show(m *machine, want, unit string, properties ...string) {
	m.t.Helper()
	var got []string
	for _, p := range properties {
		got = append(got, m.run("systemctl show --value -p "+p+" "+unit))
	}
	if s := strings.Join(got, " "); s != want {
		m.t.Errorf("systemd says of %s: %v are %s, not %s", unit, properties, s, want)
	}
}

func limitsOf(s *specs.Spec) {
	s.Linux.CgroupsPath = "machine-test.slice:box:one"
	s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/kmsg", Type: "c", Major: 1, Minor: 11, FileMode: ptr(os.FileMode(0o666))}}
	s.Linux.Resources = &specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: ptr(int64(64 << 20)), Swap: ptr(int64(96 << 20)), Reservation: ptr(int64(16 << 20))},
		CPU:    &specs.LinuxCPU{Shares: ptr(uint64(512)), Quota: ptr(int64(50000)), Period: ptr(uint64(100000)), Cpus: "1"},
		Pids:   &specs.LinuxPids{Limit: ptr(int64(20))}, Unified: map[string]string{"memory.high": "50331648", "memory.oom.group": "1"},
		Devices: []specs.LinuxDeviceCgroup{{Access: "rwm"}}}
}

// apart keeps a detached container from holding the agent's pipe.
const apart = " </dev/null >/tmp/out 2>&1 || { cat /tmp/out; false; }"

const boxGroup = "/sys/fs/cgroup/machine.slice/machine-test.slice/box-one.scope"

func scoped(m *machine) {
	bundle(m, "one", limitsOf, "sleep", "1000")
	m.run("/t/bin/oar --systemd-cgroup run -d -b /b/one one" + apart)
	show(m, "active machine-test.slice yes yes no", "box-one.scope", "ActiveState", "Slice", "Delegate", "CanStop", "DefaultDependencies")
	m.want(m.run("/t/bin/oar state one | sed -n 's/.*\"pid\": \\([0-9]*\\).*/\\1/p'"), "cat "+boxGroup+"/cgroup.procs")
	show(m, "67108864 33554432 16777216 50331648 500ms 59 1 20", "box-one.scope", limitProperties()...)
	files(m, map[string]string{"memory.max": "67108864", "memory.swap.max": "33554432", "memory.low": "16777216", "memory.high": "50331648", "memory.oom.group": "1",
		"cpu.max": "50000 100000", "cpu.weight": "59", "cpuset.cpus": "1", "pids.max": "20"})
	m.want("0::/", "/t/bin/oar exec one cat /proc/self/cgroup")
}

func limitProperties() []string {
	return strings.Fields("MemoryMax MemorySwapMax MemoryLow MemoryHigh CPUQuotaPerSecUSec CPUWeight AllowedCPUs TasksMax")
}

func files(m *machine, want map[string]string) {
	m.t.Helper()
	for file, value := range want {
		m.want(value, "cat "+boxGroup+"/"+file)
	}
}

func newFiles() map[string]string {
	return map[string]string{"memory.max": "33554432", "memory.swap.max": "0", "cpu.max": "25000 100000", "cpu.weight": "100", "cpuset.cpus": "0", "pids.max": "10"}
}

func scopeUpdated(m *machine) {
	m.run("/t/bin/oar update --memory 32m --memory-swap 32m --cpu-quota 25000 --cpu-share 1024 --cpuset-cpus 0 --pids-limit 10 one")
	show(m, "33554432 0 16777216 50331648 250ms 100 0 10", "box-one.scope", limitProperties()...)
	files(m, newFiles())
	// The quota stays when only the period changes, and systemd knows that the share is another.
	m.run("/t/bin/oar update --cpu-period 50000 --cpu-burst 20000 one")
	show(m, "500ms", "box-one.scope", "CPUQuotaPerSecUSec")
	files(m, map[string]string{"cpu.max": "25000 50000", "cpu.max.burst": "20000"})
	m.run("/t/bin/oar update --cpu-period 100000 --cpu-burst 0 one")
	show(m, "250ms", "box-one.scope", "CPUQuotaPerSecUSec")
	files(m, newFiles())
}

// reloaded: what systemd writes when it realizes groups again is what the container has, and the device rules stay.
func reloaded(m *machine) {
	m.run("systemctl daemon-reload; systemd-run --slice machine-test.slice --scope true; systemctl set-property --runtime machine-test.slice CPUWeight=50")
	files(m, newFiles())
	m.want("written", "/t/bin/oar exec one sh -c 'echo x >/dev/null && echo written'")
	m.want("refused", "/t/bin/oar exec one sh -c 'head -c 1 /dev/kmsg || echo refused' 2>/dev/null")
}

func scopeEntered(m *machine) {
	m.run("/t/bin/oar exec -d one sleep 1001" + apart + " && /t/bin/oar pause one")
	m.want("frozen 1 paused", "echo $(grep frozen "+boxGroup+"/cgroup.events) $(/t/bin/oar state one | sed -n 's/.*\"status\": \"\\(.*\\)\".*/\\1/p')")
	m.run("/t/bin/oar resume one")
	m.want("2", "/t/bin/oar ps -f json one | tr -cd , | wc -c | awk '{print $1 + 1}'")
}

func scopeGone(m *machine) {
	m.run("/t/bin/oar kill --all one KILL")
	m.eventually("test $(systemctl is-active box-one.scope) = inactive") // systemd has removed the group by itself
	m.run("/t/bin/oar kill --all one KILL; /t/bin/oar delete one && test ! -e " + boxGroup)
	m.run("/t/bin/oar --systemd-cgroup run -d -b /b/one one" + apart + " && /t/bin/oar delete --force one")
	show(m, "not-found inactive", "box-one.scope", "LoadState", "ActiveState")
	m.want("", "systemctl list-units --all --plain --no-legend 'box-*' 'oar-*'")
}

// scopeNested: what a container makes below its group, as the group is its own, does not stay.
func scopeNested(m *machine) {
	bundle(m, "nested", nil, "sh", "-c", "cd /sys/fs/cgroup && mkdir -p a/b c && echo $$ >a/b/cgroup.procs && echo +pids >cgroup.subtree_control && exec sleep 1000")
	m.run("/t/bin/oar --systemd-cgroup run -d -b /b/nested nested" + apart)
	m.eventually("grep pids /sys/fs/cgroup/system.slice/oar-nested.scope/cgroup.subtree_control")
	m.want("0::/a/b", "/t/bin/oar exec nested cat /proc/self/cgroup") // the group itself takes no processes any more
	m.run("/t/bin/oar delete --force nested; test ! -e /sys/fs/cgroup/system.slice/oar-nested.scope")
}

func annotated(m *machine) {
	bundle(m, "note", func(s *specs.Spec) {
		s.Annotations = map[string]string{"org.systemd.property.TimeoutStopSec": "7", "org.systemd.property.After": "['dbus.service']"}
	}, "sleep", "1000")
	m.run("/t/bin/oar --systemd-cgroup run -d -b /b/note note" + apart)
	show(m, "7s", "oar-note.scope", "TimeoutStopUSec")
	m.run("systemctl show --value -p After oar-note.scope | grep dbus.service; /t/bin/oar delete -f note")
	bundle(m, "bad", func(s *specs.Spec) {
		s.Annotations = map[string]string{"org.systemd.property.ExecStopPost": "[('/bin/sh', ['sh', '-c', 'touch /evil'], false)]"}
	}, "true")
	if out, code := m.try("/t/bin/oar --systemd-cgroup run -b /b/bad bad"); code != 1 || !strings.Contains(out, "ExecStopPost") {
		m.t.Errorf("exit code %d: %s", code, out)
	}
}

// scopeFailed: a container that cannot be made leaves no unit, and one whose program ends at once no failed one.
func scopeFailed(m *machine) {
	bundle(m, "fails", func(s *specs.Spec) { s.Linux.Resources.Unified = map[string]string{"memory.high": "nonsense"} }, "true")
	m.want("refused", "/t/bin/oar --systemd-cgroup run -b /b/fails fails >/dev/null 2>&1 || echo refused")
	bundle(m, "missing", nil, "/no/program")
	m.want("1", "/t/bin/oar --systemd-cgroup run -b /b/missing missing >/dev/null 2>&1; echo $?")
	bundle(m, "ends", nil, "sh", "-c", "exit 3")
	m.want("3", "/t/bin/oar --systemd-cgroup run -b /b/ends ends; echo $?")
	// A second container of the same scope is refused, and the first goes on.
	bundle(m, "same", func(s *specs.Spec) { s.Linux.CgroupsPath = "machine-test.slice:oar:same" }, "sh", "-c", "trap : TERM; while :; do sleep 1; done")
	m.run("/t/bin/oar --systemd-cgroup run -d -b /b/same first" + apart)
	if out, code := m.try("/t/bin/oar --systemd-cgroup run -d -b /b/same second 2>&1 </dev/null | head -3"); code != 0 || !strings.Contains(out, "another name") {
		m.t.Errorf("a second container of a scope: %d %s", code, out)
	}
	show(m, "active", "oar-same.scope", "ActiveState")
	m.want("running", "/t/bin/oar state first | sed -n 's/.*\"status\": \"\\(.*\\)\".*/\\1/p'")
	m.run("/t/bin/oar delete -f first")
	m.want("", "systemctl list-units --all --plain --no-legend 'oar-*'; ls /run/oar; pgrep oar || true")
}

func podman(m *machine) {
	m.run("podman load -q -i /t/images/busybox-1.tar")
	run := "podman --runtime /t/bin/oar --cgroup-manager systemd "
	m.want("5", run+"run --rm --net host busybox:1 sh -c 'exit 5' || echo $?")
	m.run(run + "run -d --name pod --net host -m 48m --pids-limit 30 busybox:1 sleep 1000")
	unit := "libpod-" + m.run("podman inspect -f '{{.Id}}' pod") + ".scope"
	show(m, "active machine.slice 50331648 30", unit, "ActiveState", "Slice", "MemoryMax", "TasksMax")
	m.want("48 MB", run+"exec pod sh -c 'echo $(($(cat /sys/fs/cgroup/memory.max) / 1048576)) MB'")
	m.run(run + "rm -f -t 0 pod")
	show(m, "inactive", unit, "ActiveState")
}

func containerd(m *machine) {
	m.run("systemctl start containerd && ctr images import /t/images/busybox-1.tar")
	ctr := "ctr run --runc-binary /t/bin/oar --runc-systemd-cgroup "
	m.want("hello", ctr+"--rm --cgroup system.slice:ctr:hello docker.io/library/busybox:1 hello echo hello")
	m.run(ctr + "-d --memory-limit 33554432 --cgroup system.slice:ctr:long docker.io/library/busybox:1 long sleep 1000" + apart)
	show(m, "active", "ctr-long.scope", "ActiveState")
	show(m, "33554432", "ctr-long.scope", "MemoryMax")
	m.want("here", "ctr task exec --exec-id e long echo here")
	m.run("ctr task kill -s KILL long; ctr task delete long; ctr container delete long; systemctl stop containerd")
	show(m, "inactive", "ctr-long.scope", "ActiveState")
}

// userScope: the tests of the package as root, and as somebody who has only a manager of his own.
func userScope(m *machine) {
	m.run("/t/tests/systemd/test -test.run TestRealScope -test.v | grep -e '--- PASS: TestRealScope'")
	m.eventually("systemctl is-active user@1000.service")
	m.run(`systemd-run --wait --pipe -q -p User=user -p PAMName=login -E XDG_RUNTIME_DIR=/run/user/1000 -E DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/1000/bus \
		/t/tests/systemd/test -test.run TestRealScope -test.v | grep -e '--- PASS: TestRealScope'`)
}

// userContainers: where a user's manager has delegated a control group, his container has one, with its limits.
func userContainers(m *machine) {
	own := []specs.LinuxIDMapping{{HostID: 1000, Size: 1}}
	bundle(m, "users", func(s *specs.Spec) {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
		s.Linux.UIDMappings, s.Linux.GIDMappings = own, own
		s.Linux.Resources = &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(64 << 20))}, Pids: &specs.LinuxPids{Limit: ptr(int64(20))}}
	}, "sleep", "1000")
	m.run(`cat >/b/users/script <<'END'
oar=/t/bin/oar
$oar run -d -b /b/users u </dev/null
group=/sys/fs/cgroup$(sed s/^0::// /proc/$($oar state u | sed -n 's/.*"pid": \([0-9]*\).*/\1/p')/cgroup)
echo $(cat $group/memory.max $group/pids.max)
$oar exec u id -u
$oar pause u; $oar state u | grep -o paused; $oar resume u
$oar update --memory 32m u; cat $group/memory.max
$oar delete --force u; test ! -e $group; echo gone: $?
END`)
	m.want("67108864 20 0 paused 33554432 gone: 0", `systemd-run --wait --pipe -q -p User=user -p PAMName=login -E XDG_RUNTIME_DIR=/run/user/1000 -E DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/1000/bus \
		systemd-run --user --scope -q -p Delegate=yes sh /b/users/script 2>&1 | xargs`)
}

// userScopes: a user's manager makes the scope of his container, with limits and without rules about devices, which are root's.
func userScopes(m *machine) {
	own := []specs.LinuxIDMapping{{HostID: 1000, Size: 1}}
	bundle(m, "scopes", func(s *specs.Spec) {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
		s.Linux.UIDMappings, s.Linux.GIDMappings = own, own
		s.Linux.Resources = &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(64 << 20))}, Pids: &specs.LinuxPids{Limit: ptr(int64(20))},
			Devices: []specs.LinuxDeviceCgroup{{Access: "rwm"}}}
	}, "sleep", "1000")
	m.run(`cat >/b/scopes/script <<'END'
oar="/t/bin/oar --systemd-cgroup"
$oar run -d -b /b/scopes v </dev/null
show() { systemctl --user show --value -p $1 oar-v.scope; }
echo $(show ActiveState) $(show Slice) $(show MemoryMax) $(show TasksMax)
$oar update --memory 32m v; show MemoryMax; cat /sys/fs/cgroup$(show ControlGroup)/memory.max
$oar exec v id -u
$oar delete --force v; show ActiveState
END`)
	m.want("active user.slice 67108864 20 33554432 33554432 0 inactive", `systemd-run --wait --pipe -q -p User=user -p PAMName=login -E XDG_RUNTIME_DIR=/run/user/1000 -E DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/1000/bus \
		systemd-run --user --scope -q -p Delegate=yes sh /b/scopes/script 2>&1 | xargs`)
}
