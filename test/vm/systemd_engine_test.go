package vm

import "strings"

// engineScope: the engine's containers are in one scope that systemd has delegated, and outlive its service.
func engineScope(m *machine) {
	m.run(`cp /t/dist/wherry.service /run/systemd/system/ && mkdir -p /usr/local/bin && cp /t/bin/wherryd /t/bin/oar /usr/local/bin/ && systemctl daemon-reload
		systemctl start wherry.service`)
	wherry := "export WHERRY_HOST=unix:///run/wherry/wherry.sock; /t/bin/wherry "
	m.run(wherry + "load -q -i /t/images/busybox-1.tar; /t/bin/wherry run -d --name box --network none -m 32m --cpus 0.5 --pids-limit 20 busybox:1 sleep 1000")
	id := m.run(wherry + "inspect -f '{{.Id}} {{.State.Pid}}' box")
	id, pid, _ := strings.Cut(id, " ")
	scope := m.run("cd /sys/fs/cgroup/system.slice && ls -d wherry-*.scope")
	show(m, "active yes system.slice", scope, "ActiveState", "Delegate", "Slice")
	m.want("0::/system.slice/"+scope+"/"+id, "cat /proc/"+pid+"/cgroup")
	for file, value := range map[string]string{"memory.max": "33554432", "cpu.max": "50000 100000", "pids.max": "20"} {
		m.want(value, "cat /sys/fs/cgroup/system.slice/"+scope+"/"+id+"/"+file)
	}
	m.want("/system.slice/"+scope+"/shims", `for p in $(pgrep -f '^oar shim'); do sed -n 's/0:://p' /proc/$p/cgroup; done | sort -u`)
	m.want("gone", "test -e /sys/fs/cgroup/wherry || echo gone")
	m.want("max", "cat /sys/fs/cgroup/system.slice/"+scope+"/pids.max") // systemd's default is 15 % of the machine's, for all containers together
	// systemd makes all mounts shared: a container's stay its own.
	m.run("cut -d' ' -f5 /proc/self/mountinfo >/tmp/before")
	for _, options := range []string{"--network none", "--network none --cap-add SYS_ADMIN", "--network host --cap-add SYS_ADMIN", "--network none --privileged"} {
		// Over each of its mounts and over its root it mounts one more, while it runs.
		m.run(wherry + "run -d --name covers --security-opt seccomp=unconfined " + options + ` busybox:1 sh -c '
			for at in /sys/fs/cgroup /sys $(cut -d" " -f5 /proc/self/mountinfo | sort -r); do mount -t tmpfs x $at; done 2>/dev/null; echo mounted; sleep 1000'`)
		m.eventually(wherry + "logs covers | grep mounted")
		m.want("", "cut -d' ' -f5 /proc/self/mountinfo | diff /tmp/before -")
		m.run(wherry + "rm -f covers")
	}
	// What a container prints is in the journal, under its name.
	m.run(wherry + "run --rm --name told --network none --log-driver journald --log-opt 'tag=of-{{.Name}}' busybox:1 sh -c 'echo to the journal; echo badly >&2'")
	m.eventually("journalctl -q -o cat CONTAINER_NAME=told SYSLOG_IDENTIFIER=of-told PRIORITY=6 | grep -x 'to the journal'")
	m.eventually("journalctl -q -o cat CONTAINER_NAME=told PRIORITY=3 | grep -x badly")
	if out, code := m.try(wherry + "run --rm --cgroup-parent x.slice busybox:1 true"); code == 0 || !strings.Contains(out, "slice") {
		m.t.Errorf("a slice as a container's parent: exit code %d: %s", code, out)
	}
	m.run("systemctl set-property --runtime " + scope + " TasksMax=1000") // as a scope of an earlier engine's
	for _, what := range []string{"daemon-reload", "restart wherry.service", "kill -s KILL wherry.service; systemctl reset-failed wherry.service; systemctl restart wherry.service"} {
		m.run("systemctl " + what)
		m.eventually(wherry + "version >/dev/null")
		m.want("running "+pid, wherry+"inspect -f '{{.State.Status}} {{.State.Pid}}' box")
		m.want("here", wherry+"exec box echo here")
		m.want("33554432", "cat /sys/fs/cgroup/system.slice/"+scope+"/"+id+"/memory.max")
	}
	m.want("max", "cat /sys/fs/cgroup/system.slice/"+scope+"/pids.max")
	m.run("systemctl stop wherry.service")
	m.want("0::/system.slice/"+scope+"/"+id, "cat /proc/"+pid+"/cgroup") // still there
	m.run("systemctl start wherry.service; " + wherry + "rm -f box; systemctl stop wherry.service")
	m.eventually("test ! -e /sys/fs/cgroup/system.slice/" + scope) // nobody is left in it
	show(m, "inactive", scope, "ActiveState")
}

// hostStops: when the host is shut down, containers are stopped as they want to be, while it is all there.
func hostStops(m *machine) {
	wherry := "export WHERRY_HOST=unix:///run/wherry/wherry.sock; /t/bin/wherry "
	m.run("systemctl start wherry.service; " + wherry + `run -d --name tells --userns host --network none --device /dev/ttyS0 --stop-signal USR1 --stop-timeout 30 busybox:1 \
		sh -c 'trap "sleep 12; echo ended in order >/dev/ttyS0; exit" USR1; echo ready; while :; do sleep 0.2; done'`)
	m.eventually(wherry + "logs tells | grep ready")
	m.run(wherry + "run -d --name heedless --stop-timeout 1 --network none busybox:1 sleep 1000") // systemd would wait a minute and a half for it
	m.off()
	console := m.console()
	if !strings.Contains(console, "ended in order") || strings.Contains(console, "Waiting for process") {
		m.t.Errorf("the container was not stopped in order:\n%s", console[max(0, len(console)-3000):])
	}
}
