package sysprog

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Mapping is one line of a uid_map or gid_map (user_namespaces(7)).
type Mapping struct{ Inside, Outside, Count uint32 }

func mapText(maps []Mapping) string {
	var b strings.Builder
	for _, m := range maps {
		fmt.Fprintf(&b, "%d %d %d\n", m.Inside, m.Outside, m.Count)
	}
	return b.String()
}

// UserNamespace makes a user namespace with these maps and returns it, held by the file alone.
func UserNamespace(uids, gids []Mapping) (*os.File, error) {
	p, err := New(256)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	// It is killed when the namespace is open. Should this process be killed before, nobody is left to do so: it ends by itself.
	p.Call("wait", unix.SYS_NANOSLEEP, p.words([]uint64{30, 0}), nil)
	p.Fail("wait for the namespace to be opened", int(unix.ETIMEDOUT))
	pr, err := p.Start(unix.CLONE_NEWUSER, false)
	if err != nil {
		return nil, fmt.Errorf("make a user namespace: %w", err)
	}
	defer pr.Discard()
	proc := "/proc/" + strconv.Itoa(pr.Pid)
	if err := os.WriteFile(proc+"/uid_map", []byte(mapText(uids)), 0); err != nil {
		return nil, fmt.Errorf("map users into a user namespace: %w", err)
	}
	if err := os.WriteFile(proc+"/gid_map", []byte(mapText(gids)), 0); err != nil {
		return nil, fmt.Errorf("map groups into a user namespace: %w", err)
	}
	return os.Open(proc + "/ns/user")
}
