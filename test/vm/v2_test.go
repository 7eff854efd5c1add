package vm

import (
	"strconv"
	"strings"
	"testing"
)

// TestControlGroupsVersion2 runs what a person runs on a host that has control groups of version 2 only.
func TestControlGroupsVersion2(t *testing.T) {
	t.Parallel()
	m := boot(t, newDisk(t))
	m.run("modprobe bfq && echo bfq >/sys/block/vda/queue/scheduler")
	m.run("engine start && wherry load -q -i /images/busybox-1.tar")
	for _, step := range []struct {
		name string
		run  func(*machine)
	}{
		{"run with a network and a published port", published},
		{"ids and layers are mapped", mapped},
		{"terminal, exec, devices", inside},
		{"a memory limit kills and names", memoryLimit},
		{"half a processor", halfProcessor},
		{"limits are the kernel's", kernelLimits},
		{"what memory is made of", memorySplit},
		{"update while it runs", updated},
		{"pause stops the clock", paused},
		{"an engine that is killed finds all again", adopted},
		{"the docker command line", dockerClient},
		{"the wall clock jumps", clockJumps},
		{"what is built does not depend on the clock", builtAtAnyTime},
		{"limits of namespaces", namespaceLimits}, {"nothing is left", nothingLeft},
	} {
		if !t.Run(step.name, func(t *testing.T) { m.t = t; step.run(m) }) {
			break
		}
	}
	m.t = t
	m.off()
}

// group is a shell word: the directory of a container's control group.
func group(name string) string {
	return "/sys/fs/cgroup/wherry/$(wherry inspect -f '{{.Id}}' " + name + ")"
}

func number(m *machine, script string) int {
	m.t.Helper()
	n, err := strconv.Atoi(m.run(script))
	if err != nil {
		m.t.Fatal(err)
	}
	return n
}

func published(m *machine) {
	m.run("wherry network create inner; wherry run -d --name web -p 8080:80 busybox:1 httpd -f -p 80 -h /etc; wherry run -d --name two --network inner busybox:1 sleep 3600")
	for _, host := range []string{"127.0.0.1", "[::1]"} {
		m.want("root:x:0:0:root:/root:/bin/sh", "wget -q -O - http://"+host+":8080/passwd | head -1")
	}
	m.want("root:x:0:0:root:/root:/bin/sh", "wherry run --rm busybox:1 wget -q -O - http://$(wherry inspect -f '{{.NetworkSettings.Networks.bridge.IPAddress}}' web)/passwd | head -1")
	out, code := m.try("wherry run --rm -p 8080:81 busybox:1 true")
	if code != 125 || !strings.Contains(out, "already allocated") || !strings.Contains(out, "web") {
		m.t.Errorf("a port twice: exit code %d: %s", code, out)
	}
	if out, _ := m.try("timeout 60 httpd -f -p 8080 -h /etc"); !strings.Contains(out, "in use") {
		m.t.Errorf("a program of the host takes a published port: %s", out)
	}
	out = m.run("wherry run --rm --network inner busybox:1 ping -c 1 two")
	if !strings.Contains(out, "1 packets received") {
		m.t.Error(out)
	}
}

// mapped: uid 0 inside is another one outside, the layer's files are root's inside, and what is written carries the range's ids on the disk.
func mapped(m *machine) {
	base := number(m, "wherry run --rm busybox:1 awk '{print $2}' /proc/self/uid_map")
	if base < 1<<28 {
		m.t.Errorf("the container's ids begin at %d", base)
	}
	m.want("0 0", "wherry run --rm busybox:1 stat -c '%u %g' /etc/passwd")
	m.want("42", `wherry run --name writer -v data:/data busybox:1 sh -c 'echo 42 >/root/file; echo 42 >/data/file; mkdir -p /etc/new; mv /etc/new /etc/newer; rm /etc/group; cat /root/file' &&
		id=$(wherry inspect -f '{{.Id}}' writer) && test $(stat -c %u /var/lib/wherry/containers/$id/rootfs/upper/root/file) -gt 268435455 && test $(stat -c %u /var/lib/wherry/volumes/data/_data/file) = 0`)
	m.want("42", "wherry cp writer:/root/file - | tar x -O")
	m.want("42", "wherry run --rm -v data:/data busybox:1 cat /data/file")
	m.run("wherry rm writer")
}

func inside(m *machine) {
	out := m.run("wherry run -t --rm busybox:1 sh -c 'tty; ls -l /dev/console; echo out >/dev/console'")
	if !strings.Contains(out, "/dev/pts/0") || !strings.Contains(out, "136,   0") || !strings.Contains(out, "out") {
		m.t.Error(out)
	}
	m.want("0 0 out", "wherry run --rm busybox:1 sh -c 'stat -c \"%u %g\" /etc/hosts | xargs; echo out >>/etc/hosts && tail -1 /etc/hosts' | xargs")
	m.want("0", "grep -c 'without mapping' /var/log/wherryd.log || true")
	m.want("0::/", "wherry exec web cat /proc/self/cgroup") // seen from its own namespace; from outside:
	m.want("2", "wherry exec -d web sleep 1234; sleep 0.2; grep -c . "+group("web")+"/cgroup.procs")
	m.want("5 zero", "wherry run --rm --device /dev/zero:/zed busybox:1 sh -c 'head -c 5 /zed | wc -c; echo zero' | xargs")
	m.want("0", "mkdir -p /root/dev; touch /root/dev/null; wherry run --rm -v /root/dev:/dev busybox:1 sh -c 'cat /proc/kcore | wc -c'")
	if out, code := m.try("wherry run --rm busybox:1 sh -c 'mknod /tmp/d b 254 0 && cat /tmp/d'"); code == 0 {
		m.t.Errorf("a container reads the disk: %s", out)
	}
}

func memoryLimit(m *machine) {
	m.run("wherry run -d --name neighbour -m 32m busybox:1 sleep 3600")
	out, code := m.try("wherry run --name greedy -m 32m --memory-swap 32m busybox:1 tail /dev/zero")
	if code != 137 || !strings.Contains(out, "tail") {
		m.t.Errorf("exit code %d: %s", code, out)
	}
	m.want("true 137", "wherry inspect -f '{{.State.OOMKilled}} {{.State.ExitCode}}' greedy")
	m.want("1", "wherry events --since 10m --until 0s --filter event=oom --filter container=greedy | grep -c victim=tail")
	m.want("true", "wherry inspect -f '{{.State.Running}}' neighbour")
	// A process of a container that lives on; and shims are the last that the kernel chooses, their containers are not.
	m.run("wherry run -d --name short -m 32m --memory-swap 32m busybox:1 sh -c 'tail /dev/zero; sleep 3600'")
	m.want("1", "for i in $(seq 1000); do wherry events --since 10m --until 0s --filter event=oom --filter container=short | grep victim=tail && break; sleep 0.1; done | wc -l")
	m.want("true true", "wherry inspect -f '{{.State.Running}} {{.State.OOMKilled}}' short")
	m.want("-999 0", `pid=$(wherry inspect -f '{{.State.Pid}}' short); shim=$(sed -n 's/PPid:\t//p' /proc/$pid/status); echo $(cat /proc/$shim/oom_score_adj) $(cat /proc/$pid/oom_score_adj)`)
	m.run("wherry rm -f greedy neighbour short")
}

func halfProcessor(m *machine) {
	m.run("wherry run -d --name spin --cpus 0.5 busybox:1 sh -c 'while :; do :; done & while :; do :; done'")
	share := number(m, `cd `+group("spin")+`; used() { sed -n 's/usage_usec //p' cpu.stat; }; now() { awk '{print int($1*1000000)}' /proc/uptime; }
		a=$(used); t=$(now); sleep 3; echo $((100*($(used)-a)/($(now)-t)))`)
	if share > 60 {
		m.t.Errorf("two loops with half a processor used %d %% of one", share)
	}
	if n := number(m, "sed -n 's/nr_throttled //p' "+group("spin")+"/cpu.stat"); n == 0 {
		m.t.Error("the kernel never held it back")
	}
}

func kernelLimits(m *machine) {
	m.run(`wherry run -d --name limits --memory 50m --memory-swap 80m --memory-reservation 20m --cpu-shares 512 --cpuset-cpus 1 --blkio-weight 300 --pids-limit 10 \
		--device-read-bps /dev/vda:1mb --device-write-iops /dev/vda:100 busybox:1 sleep 3600`)
	for file, value := range map[string]string{"memory.max": "52428800", "memory.swap.max": "31457280", "memory.low": "20971520", "cpu.weight": "59", "cpuset.cpus": "1",
		"cpuset.cpus.effective": "1", "io.bfq.weight": "default 300", "pids.max": "10", "io.max": "254:0 rbps=1048576 wbps=max riops=max wiops=100"} {
		m.want(value, "cat "+group("limits")+"/"+file)
	}
	m.want("Cpus_allowed_list: 1", "wherry exec limits grep Cpus_allowed_list /proc/self/status | xargs")
	out, _ := m.try("wherry exec limits sh -c 'for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 5 & done'")
	if !strings.Contains(out, "fork") {
		m.t.Errorf("more processes than allowed: %s", out)
	}
	if out := m.run("wherry stats --no-stream --format '{{.MemUsage}} {{.PIDs}}' limits"); !strings.Contains(out, "/ 50MiB") {
		m.t.Error(out)
	}
}

// memorySplit: what a program has written to memory, to a file and to shared memory is told apart.
func memorySplit(m *machine) {
	m.run(`wherry run -d --name split --shm-size 32m busybox:1 sh -c 'dd if=/dev/zero of=/dev/shm/f bs=1M count=8; dd if=/dev/zero of=/file bs=1M count=6; x=$(head -c 20000000 /dev/zero | tr "\\0" x); echo ready; sleep 3600; true'`)
	m.want("1", "for i in $(seq 300); do wherry logs split 2>/dev/null | grep -q ready && break; sleep 0.1; done; wherry logs split 2>/dev/null | grep -c ready")
	parts := strings.Fields(m.run("wherry stats --no-stream --format '{{.MemAnon}} {{.MemFile}} {{.MemShmem}}' split"))
	for i, row := range []struct {
		what        string
		least, most float64 // MiB
	}{{"anonymous", 19, 90}, {"file", 5.5, 12}, {"shared", 8, 8.5}} {
		if i >= len(parts) {
			m.t.Fatalf("parts: %q", parts)
		}
		size, err := strconv.ParseFloat(strings.TrimSuffix(parts[i], "MiB"), 64)
		if err != nil || size < row.least || size > row.most {
			m.t.Errorf("%s memory is %s, want %g to %g MiB", row.what, parts[i], row.least, row.most)
		}
	}
	m.run("wherry rm -f split")
}

func updated(m *machine) {
	m.run("wherry update --cpus 0.25 -m 40m --memory-swap 40m --pids-limit 20 --cpuset-cpus 0 --blkio-weight 500 spin")
	for file, value := range map[string]string{"cpu.max": "25000 100000", "memory.max": "41943040", "memory.swap.max": "0", "pids.max": "20", "cpuset.cpus": "0", "io.bfq.weight": "default 500"} {
		m.want(value, "cat "+group("spin")+"/"+file)
	}
}

func paused(m *machine) {
	m.run("wherry pause spin")
	m.want("1 paused", "echo $(sed -n 's/frozen //p' "+group("spin")+"/cgroup.events) $(wherry inspect -f '{{.State.Status}}' spin)")
	m.want("still", `used() { sed -n 's/usage_usec //p' `+group("spin")+`/cpu.stat; }; a=$(used); sleep 1; [ $(used) = $a ] && echo still`)
	m.run("wherry unpause spin")
	m.want("0", "sed -n 's/frozen //p' "+group("spin")+"/cgroup.events")
	m.run("wherry rm -f spin")
}

func adopted(m *machine) {
	m.run("wherry run -d --name short busybox:1 sh -c 'sleep 2; exit 42'; wherry run -d --name heavy -m 16m --memory-swap 16m busybox:1 sh -c 'sleep 2; tail /dev/zero'")
	pid := m.run("wherry inspect -f '{{.State.Pid}}' web")
	m.run("engine kill; sleep 3; engine start")
	m.want("running "+pid, "wherry inspect -f '{{.State.Status}} {{.State.Pid}}' web")
	m.want("42", "wherry wait short")
	m.want("137 true", "wherry wait heavy >/dev/null; wherry inspect -f '{{.State.ExitCode}} {{.State.OOMKilled}}' heavy")
	m.want("root:x:0:0:root:/root:/bin/sh", "wget -q -O - http://127.0.0.1:8080/passwd | head -1")
	m.want("here", "wherry exec web echo here")
	m.run("wherry update -m 64m web && wherry pause web && wherry unpause web && wherry rm short heavy")
}

func dockerClient(m *machine) {
	m.want("hello", "docker run --rm -m 32m busybox:1 echo hello")
	m.want("here", "docker exec web echo here")
	m.want("2 cgroupfs", "docker info -f '{{.CgroupVersion}} {{.CgroupDriver}}'")
}

// clockJumps: a wall clock that is set neither ends nor restarts anything, nor does it stop what has to go on.
func clockJumps(m *machine) {
	m.run("wherry run -d --name steady --restart always --health-cmd true --health-interval 1s busybox:1 sh -c 'while :; do echo tick; sleep 0.5; done'")
	m.eventually("wherry inspect -f '{{.State.Health.Status}}' steady | grep -x healthy")
	state := "wherry inspect -f '{{.State.Pid}} {{.RestartCount}} {{.State.Status}}' steady"
	before := m.run(state)
	for _, days := range []string{"1", "-2"} {
		m.run("wherry run -d --name crash --restart on-failure busybox:1 sh -c 'sleep 0.3; exit 1'")
		m.run("date -s @$(($(date +%s)+86400*" + days + "))")
		m.eventually("test $(wherry inspect -f '{{.RestartCount}}' crash) -gt 2") // back-off goes on
		m.want("ok", "timeout 60 wherry run --rm busybox:1 echo ok")
		m.want(before+" healthy", state+" | tr '\\n' ' '; wherry inspect -f '{{.State.Health.Status}}' steady")
		m.run("engine kill; engine start; wherry rm -f crash")
		m.want(before, state)
		m.eventually("wherry inspect -f '{{.State.Health.Status}}' steady | grep -x healthy")
		lines := number(m, "wherry logs steady | wc -l")
		m.eventually("test $(wherry logs steady | wc -l) -gt " + strconv.Itoa(lines))
	}
	m.want("137", "wherry stop -t 1 steady >/dev/null; wherry inspect -f '{{.State.ExitCode}}' steady")
	m.run("wherry rm -f steady")
}

// builtAtAnyTime: the same sources make the same image, whatever the time of day and of the files.
func builtAtAnyTime(m *machine) {
	m.run(`mkdir /tmp/sources && cd /tmp/sources && echo file >file &&
		printf 'FROM busybox:1 AS work\nRUN mkdir /out && date >/dev/null && echo made >/out/made\nFROM busybox:1\nCOPY --from=work /out /out\nCOPY file /\nRUN mkdir /more && touch /more/file\n' >Dockerfile`)
	build := "wherry build -q --no-cache -t timed /tmp/sources"
	first := m.run(build)
	m.run("wherry rmi timed && wherry builder prune -af")
	for _, when := range []string{"2031-03-04 05:06:07", "2001-02-03 04:05:06"} {
		m.run("date -u -s '" + when + "' && touch /tmp/sources/file")
		m.want(first, build)
	}
	m.run("wherry rmi timed && wherry builder prune -af")
}

// namespaceLimits: who has no namespace left is told of that, and not of a full disk; when there are some again, all goes on.
func namespaceLimits(m *machine) {
	for _, kind := range []string{"mnt", "user", "pid", "cgroup"} {
		file := "/proc/sys/user/max_" + kind + "_namespaces"
		before := m.run("cat " + file)
		out, code := m.try("echo 0 >" + file + "; wherry run --rm busybox:1 true; code=$?; wherry run --rm busybox:1 true || code=$?; echo " + before + " >" + file + "; exit $code")
		if code != 125 || !strings.Contains(out, "user.max_") || strings.Contains(out, "disk is full") {
			m.t.Errorf("without %s namespaces: exit code %d: %s", kind, code, out)
		}
		m.want("again", "wherry run --rm busybox:1 echo again")
	}
}

func nothingLeft(m *machine) {
	m.run("wherry rm -f $(wherry ps -aq) && wherry volume prune -af && wherry network prune -f")
	m.want("", "ls -d /sys/fs/cgroup/wherry/*/ 2>/dev/null || true")
	m.want("0", "ip -o link | grep -c veth || true")
	m.want("0", "grep -c overlay /proc/mounts || true")
	m.want("", "ls /run/wherry/tasks /var/lib/wherry/containers /var/lib/wherry/volumes | grep -v : || true")
	m.eventually("if ps | grep '[o]ar ' | grep -v spare; then false; fi")
}
