package vm

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestARM64: the binaries for the other architecture do there what they do here: the assembly before the runtime's start and of the child's
// program, the filter for that architecture's system calls, an engine with its default network.
func TestARM64(t *testing.T) {
	t.Parallel()
	files := filepath.Join(built(t), "arm64")
	dir, err := os.MkdirTemp("/var/tmp", "wherry-vm-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	b := board{[]string{"qemu-system-aarch64", "-machine", "virt", "-accel", "tcg,thread=single", "-cpu", "max"}, "ttyAMA0", files}
	m := b.boot(t, dir, "", "file="+filepath.Join(files, "disk.img")+",if=virtio,format=raw,snapshot=on")
	m.want("aarch64", "uname -m")

	t.Run("packages", func(t *testing.T) {
		m.t = t
		for _, name := range []string{"sysprog", "threads"} {
			// Time namespaces for a child that shares memory need Linux 6.3, as on the other machines here.
			m.run("mkdir -p /srv/t; cd /srv/t; TMPDIR=/srv/t /root/" + name + ".test -test.skip TestApartMayJoinATimeNamespace")
		}
	})
	t.Run("oar", func(t *testing.T) {
		m.t = t
		m.run("mkdir -p /srv/b/rootfs; tar -xf /root/base.tar -C /srv/b/rootfs; cd /srv/b; oar spec; sed -i 's/\"terminal\": true/\"terminal\": false/' config.json")
		m.want("aarch64", "cd /srv/b; sed -i 's/\"sh\"/\"uname\", \"-m\"/' config.json; oar run one")
		m.want("", "oar list -q")
	})
	t.Run("engine", func(t *testing.T) {
		m.t = t
		m.run("engine start; wherry import /root/base.tar base:1 >/dev/null")
		m.want("linux/arm64", "wherry image inspect --format '{{.Os}}/{{.Architecture}}' base:1")
		m.want("aarch64", "wherry run --rm base:1 uname -m")
		m.want("2", "wherry run --rm base:1 awk '/^Seccomp:/ {print $2}' /proc/self/status")
		if out, code := m.try("wherry run --rm base:1 mount -t tmpfs t /tmp"); code == 0 || !strings.Contains(out, "permi") {
			t.Errorf("a mount inside: exit code %d: %s", code, out)
		}
		m.run("wherry run -d --name web -p 8080:80 base:1 sh -c 'mkdir /tmp/w; echo hello >/tmp/w/index.html; httpd -f -h /tmp/w'")
		// wget of this busybox crashes in emulation.
		const get = "printf 'GET /index.html HTTP/1.0\\r\\n\\r\\n' | nc -w 5 127.0.0.1 8080 | tail -n 1"
		m.eventually("[ \"$(" + get + ")\" = hello ]")
		m.want("hello", "wherry exec web cat /tmp/w/index.html")
		m.want("1", "wherry exec web ps -o pid,args | grep -c 'httpd -f'")
		m.run("engine kill; engine start")
		m.want("hello", get)
		m.want("137 true", "wherry run --name greedy -m 32m base:1 sh -c 'dd if=/dev/zero bs=64M of=/dev/null' >/dev/null 2>&1; wherry inspect --format '{{.State.ExitCode}} {{.State.OOMKilled}}' greedy")
		m.run("wherry rm -f web greedy; engine stop")
	})
	m.t = t
	m.off()
}
