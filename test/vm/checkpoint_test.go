package vm

import (
	"strings"
	"testing"
)

// TestCheckpoints writes containers of the engine to disk and lets them go on, on a kernel that Debian's criu knows, with both command lines.
func TestCheckpoints(t *testing.T) {
	t.Parallel()
	m := bootDebian(t, "/usr/lib/plain/init")
	m.run("cp /t/bin/wherry /t/bin/wherryd /t/bin/oar /t/bin/docker /usr/local/bin/; ln -s /usr/local/bin/* /bin/")
	checkpointEngine(m)
	m.run("wherry load -q -i /t/images/busybox-1.tar")
	for _, step := range []struct {
		name string
		run  func(*machine)
	}{
		{"a counter goes on", countsOn}, {"a server, with its address and limits", servesOn}, {"again, and elsewhere", checkpointsElsewhere},
		{"input, exit codes, the engine's death", checkpointedLife}, {"what does not come back is refused", checkpointsRefused},
	} {
		if !t.Run(step.name, func(t *testing.T) { m.t = t; step.run(m) }) {
			break
		}
	}
	m.t = t
	m.cut()
}

func checkpointEngine(m *machine) {
	m.run("setsid wherryd --host unix:///run/wherry.sock >>/var/log/wherryd.log 2>&1 </dev/null & echo $! >/run/engine.pid")
	m.eventually("wherry version")
}

// countsOn: what is in memory, in an open file and in shared memory is there again, and the log has no gap.
func countsOn(m *machine) {
	m.run(`wherry run -d --name count --shm-size 1m busybox:1 sh -c 'exec 3>>/file; echo kept >/dev/shm/x; i=0; while :; do i=$((i+1)); echo $i; echo $i >&3; sleep 0.1; done'`)
	m.eventually("test $(wherry logs count | tail -n 1) -gt 5")
	m.want("one", "docker checkpoint create count one")
	m.want("exited 137", "wherry inspect -f '{{.State.Status}} {{.State.ExitCode}}' count")
	m.want("700", "stat -c %a /var/lib/wherry/containers/*/checkpoints/one")
	m.want("count", "echo $(wherry logs count | tail -n 1) >/tmp/last; docker start --checkpoint one count >/dev/null; wherry ps --format '{{.Names}}'")
	m.eventually("test $(wherry logs count | tail -n 1) -gt $(($(cat /tmp/last)+3))")
	m.want("", "wherry logs count | awk '$1 != NR'")
	m.want("kept 0", "wherry exec count sh -c 'echo $(cat /dev/shm/x) $(awk \"\\$1 != NR\" /file | wc -l)'")
	m.want("oar", "pid=$(wherry inspect -f '{{.State.Pid}}' count); cat /proc/$(sed -n 's/PPid:\t//p' /proc/$pid/status)/comm | cut -c1-3")
	m.want("checkpoint start", "wherry events --since 10m --until 0s --filter container=count --format '{{.Action}} {{index .Actor.Attributes \"checkpoint\"}}' | grep ' one$' | cut -d' ' -f1 | xargs")
	m.want("700 0", "stat -c '%a %u' /var/lib/wherry/containers/*/checkpoints/one")
}

func servesOn(m *machine) {
	m.run("wherry run -d --name web -p 8080:80 -m 64m --tmpfs /data --read-only --restart always --health-cmd 'wget -q -O /dev/null http://127.0.0.1/x' --health-interval 1s busybox:1 httpd -f -p 80 -h /data")
	m.want("here", "wherry exec web sh -c 'echo here >/data/x'; curl -sf http://127.0.0.1:8080/x")
	address := m.run("wherry inspect -f '{{.NetworkSettings.Networks.bridge.IPAddress}} {{.NetworkSettings.Networks.bridge.MacAddress}}' web")
	m.run("docker checkpoint create web w && wherry run --rm busybox:1 true")
	m.want("exited", "wherry inspect -f '{{.State.Status}}' web")
	m.run("docker start --checkpoint w web")
	m.want(address, "wherry inspect -f '{{.NetworkSettings.Networks.bridge.IPAddress}} {{.NetworkSettings.Networks.bridge.MacAddress}}' web")
	m.want("here", "curl -sf http://127.0.0.1:8080/x")
	m.want("67108864", "cat "+group("web")+"/memory.max")
	m.eventually("wherry inspect -f '{{.State.Health.Status}}' web | grep -x healthy")
	// Its policy is its policy again.
	m.run("kill -9 $(wherry inspect -f '{{.State.Pid}}' web)")
	m.eventually("wherry inspect -f '{{.State.Status}} {{.RestartCount}}' web | grep -x 'running 1'")
	m.run("wherry rm -f web")
}

// checkpointsElsewhere: of a container that was made again, with a folder of the host's, which criu's own mounts hide.
func checkpointsElsewhere(m *machine) {
	m.want("two", "wherry checkpoint create --leave-running count two")
	m.want("running", "wherry inspect -f '{{.State.Status}}' count")
	m.want("one two", "docker checkpoint ls count | tail -n +2 | xargs")
	m.want("one", "docker checkpoint rm count two; wherry checkpoint ls -q count")
	m.want("far", "cd /tmp; wherry checkpoint create --checkpoint-dir far count far")
	m.want("far 700", "echo $(docker checkpoint ls --checkpoint-dir /tmp/far count | tail -n 1) $(stat -c %a /tmp/far/far)")
	m.run("wherry start --checkpoint far --checkpoint-dir /tmp/far count; wherry logs count | tail -n 1 >/tmp/last")
	m.eventually("test $(wherry logs count | tail -n 1) -gt $(($(cat /tmp/last)+3))")
	m.want("", "wherry logs count | awk '$1 != NR'")
	if out, code := m.try("docker checkpoint create count one 2>&1; docker start --checkpoint one count"); code != 0 || !strings.Contains(out, "already exists for container count") {
		m.t.Errorf("twice: %d, %s", code, out)
	}
	if out, code := m.try("wherry run -d --name other busybox:1 sleep 100 >/dev/null; wherry stop -t 0 other; wherry start --checkpoint far --checkpoint-dir /tmp/far other"); code == 0 || !strings.Contains(out, "is of another container") {
		m.t.Errorf("another's: %d, %s", code, out)
	}
	m.want("0", "wherry rm -f count other >/dev/null; ls /var/lib/wherry/containers | wc -l")
}

func checkpointedLife(m *machine) {
	m.run("wherry run -d -i --name cat busybox:1 sh -c 'while read x; do echo $x; test $x = one || exit 42; done'; (echo one; sleep 1) | timeout -s KILL 60 wherry attach --sig-proxy=false cat; true")
	m.eventually("wherry logs cat | grep one")
	m.run("wherry checkpoint create cat c && wherry start --checkpoint c cat")
	pid := m.run("wherry inspect -f '{{.State.Pid}}' cat")
	m.run("kill -9 $(cat /run/engine.pid)")
	checkpointEngine(m)
	m.want("running "+pid, "wherry inspect -f '{{.State.Status}} {{.State.Pid}}' cat")
	m.want("here", "wherry exec cat echo here")
	m.run("echo two | timeout -s KILL 60 wherry attach cat; true")
	m.want("42", "wherry wait cat")
	m.want("one two", "wherry logs cat | xargs")
	m.run("rm /var/lib/wherry/containers/*/checkpoints/c/core-1.img")
	if out, code := m.try("wherry start --checkpoint c cat"); code == 0 || !strings.Contains(out, "criu restore: ") || !strings.Contains(out, "/checkpoints/c/restore.log") {
		m.t.Errorf("a checkpoint that lacks something: %d, %s", code, out)
	}
	m.want("exited 0", "echo $(wherry inspect -f '{{.State.Status}}' cat) $(ls -d "+group("cat")+" 2>/dev/null | wc -l)")
	m.run("wherry rm cat")
}

func checkpointsRefused(m *machine) {
	for _, row := range [][2]string{
		{"-t", "it has a terminal"}, {"--pid host", "namespace"}, {"--security-opt no-new-privileges", "criu 3.17 does not bring no_new_privs back"}, {"--rm", "--rm"},
	} {
		m.run("wherry run -d --name no " + row[0] + " busybox:1 sleep 1000")
		if out, code := m.try("docker checkpoint create no n"); code == 0 || !strings.Contains(out, row[1]) {
			m.t.Errorf("%s: %d, %s", row[0], code, out)
		}
		m.want("running 0", "echo $(wherry inspect -f '{{.State.Status}}' no) $(ls -A /var/lib/wherry/containers/*/checkpoints 2>/dev/null | wc -l)")
		m.run("wherry rm -f no")
	}
	m.run(`wherry run -d --name talks busybox:1 sh -c 'nc -l -p 7 -e cat & until cat /proc/net/tcp* | grep -q ":0007 .* 0A "; do sleep 0.1; done; sleep 1000 | nc 127.0.0.1 7'`)
	m.eventually("wherry exec talks sh -c 'cat /proc/net/tcp* | grep -q \":0007 01 \"'")
	if out, code := m.try("wherry checkpoint create talks t"); code == 0 || !strings.Contains(out, "which goes on") || !strings.Contains(out, "it has TCP connections") {
		m.t.Errorf("a connection: %d, %s", code, out)
	}
	m.want("running", "test -s /var/lib/wherry/containers/*/checkpoint.log; wherry inspect -f '{{.State.Status}}' talks")
	m.run("wherry rm -f talks")
}
