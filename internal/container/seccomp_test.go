package container

import (
	"testing"

	"github.com/moby/moby/api/types/container"
)

// TestSeccompOfPrivileged: a privileged container has no filter, but for one that is asked for, which holds.
func TestSeccompOfPrivileged(t *testing.T) {
	e := newEngine(t)
	const noFolders = `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":1}]}`
	const filtered = `grep -q "^Seccomp:.*2" /proc/self/status`
	for _, row := range []struct {
		why, script string
		options     []string
		plain       bool
	}{
		{"no filter by itself", "! " + filtered + " && mkdir /x", nil, false},
		{"unconfined is none", "! " + filtered + " && mkdir /x", []string{"seccomp=unconfined"}, false},
		{"a profile holds, and nothing else is taken away", filtered + " && ! mkdir /x && mount -t tmpfs t /tmp", []string{"seccomp=" + noFolders}, false},
		{"the default one, where it is not privileged", filtered + " && mkdir /x", nil, true},
		{"a profile in the place of the default one", filtered + " && ! mkdir /x", []string{"seccomp=" + noFolders}, true},
	} {
		if code := e.exitOf(request{cmd: sh(row.script), h: container.HostConfig{Privileged: !row.plain, SecurityOpt: row.options}}); code != 0 {
			t.Errorf("%s: exit %d", row.why, code)
		}
	}
	exec := e.run(request{cmd: sh("sleep 3600"), h: container.HostConfig{Privileged: true, SecurityOpt: []string{"seccomp=" + noFolders}}})
	if got := e.exec(exec, container.ExecCreateRequest{Cmd: sh(filtered + " && ! mkdir /x"), Privileged: true}, nil); got.code != 0 {
		t.Errorf("an exec: %+v", got)
	}
}
