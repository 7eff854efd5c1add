package sysprog

import (
	"bytes"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Mappings reads a user namespace's maps, as this process's namespace sees them. The kernel shows them by a process that is inside only.
func Mappings(users *os.File) (uids, gids []Mapping, err error) {
	p, err := New(256)
	if err != nil {
		return nil, nil, err
	}
	defer p.Close()
	p.Call("join the user namespace", unix.SYS_SETNS, int(users.Fd()), unix.CLONE_NEWUSER)
	p.Fork("clone into it", 0, -1)
	self, err := awaitOpening(p)
	if err != nil {
		return nil, nil, err
	}
	defer self.Close()
	pr, err := p.Start(0, true)
	if err != nil {
		return nil, nil, fmt.Errorf("look into a user namespace: %w", err)
	}
	defer pr.Discard()
	proc := "/proc/" + strconv.Itoa(pr.Pid)
	if uids, err = readMap(proc + "/uid_map"); err != nil {
		return nil, nil, err
	}
	gids, err = readMap(proc + "/gid_map")
	return uids, gids, err
}

func readMap(file string) ([]Mapping, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var out []Mapping
	for line := range bytes.Lines(b) {
		var m Mapping
		if _, err := fmt.Sscan(string(line), &m.Inside, &m.Outside, &m.Count); err != nil {
			return nil, fmt.Errorf("%s: %q: %w", file, line, err)
		}
		out = append(out, m)
	}
	return out, nil
}
