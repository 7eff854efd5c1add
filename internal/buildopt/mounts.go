package buildopt

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/spf13/pflag"
)

// Mounts are the words of builder cache: what is done with the directories of RUN --mount=type=cache.
type Mounts struct {
	Verb string // ls, export or import
	ID   string // as the Dockerfile has it: id=, else target=
	File string // "-" is the output or the input

	Namespace      string // of BUILDKIT_CACHE_MOUNT_NS
	UID, GID, Mode string // of the Dockerfile's mount, where it says them
}

// Register adds the flags to a set.
func (m *Mounts) Register(fs *pflag.FlagSet) {
	fs.StringVarP(&m.File, "output", "o", "", "The tar `file` to write, - for the output")
	fs.StringVarP(&m.File, "input", "i", "", "The tar `file` to read, - for the input; gzip and zstd are known")
	fs.StringVar(&m.Namespace, "namespace", "", "BUILDKIT_CACHE_MOUNT_NS, where builds are given one")
	fs.StringVar(&m.UID, "uid", "", "uid= of the mount, where the Dockerfile says it")
	fs.StringVar(&m.GID, "gid", "", "gid= of the mount")
	fs.StringVar(&m.Mode, "mode", "", "mode= of the mount")
}

// Take reads the words behind the flags, and refuses what nothing could come of.
func (m *Mounts) Take(args []string) error {
	if len(args) == 0 {
		return errors.New("say ls, export ID -o FILE, or import ID -i FILE")
	}
	m.Verb = args[0]
	switch {
	case m.Verb == "ls" && len(args) == 1:
		return nil
	case m.Verb != "export" && m.Verb != "import":
		return fmt.Errorf("%q: say ls, export or import", m.Verb)
	case len(args) != 2 || args[1] == "":
		return fmt.Errorf("%s wants the ID of one cache mount; wherry builder cache ls has them", m.Verb)
	case m.File == "":
		return fmt.Errorf("%s wants a file: -%c FILE", m.Verb, map[string]rune{"export": 'o', "import": 'i'}[m.Verb])
	}
	m.ID = args[1]
	_, _, err := m.Owner()
	return err
}

// Key of the mount, as BuildKit has it.
func (m *Mounts) Key() string { return m.Namespace + "/" + m.ID }

// Owner and mode of the mount's directory; ok is false where the Dockerfile says nothing of it.
func (m *Mounts) Owner() (owner [3]int, ok bool, err error) {
	owner = [3]int{0, 0, 0o755}
	for i, f := range []struct {
		flag, text string
		base       int
	}{{"--uid", m.UID, 10}, {"--gid", m.GID, 10}, {"--mode", m.Mode, 8}} {
		if f.text == "" {
			continue
		}
		n, err := strconv.ParseUint(f.text, f.base, 31)
		if err != nil {
			return owner, false, fmt.Errorf("%s %q: that is no number", f.flag, f.text)
		}
		owner[i], ok = int(n), true
	}
	return owner, ok, nil
}
