package access

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Path is where rules are looked for; nothing need be there.
const Path = "/etc/wherry/access.toml"

// Right is how much a caller may do.
type Right int

// The rights, each of which has those before it, but that the own containers of ReadOnly are everybody's.
const (
	None     Right = iota
	ReadOnly       // sees everything, changes nothing
	Own            // sees and commands what it has made, none of which reaches the host
	All            // is as good as root
)

var words = [...]string{"none", "read-only", "own", "all"}

func (r Right) String() string { return words[r] }

func parseRight(s string) (Right, error) {
	if i := slices.Index(words[:], s); i >= 0 {
		return Right(i), nil
	}
	return None, fmt.Errorf("%q is none of %s", s, strings.Join(words[:], ", "))
}

// Rule gives callers a right.
type Rule struct {
	Who  string // in words, as it was written: user alice
	May  Right
	Line int

	uid, gid    int64 // -1: not by it
	certificate string
	containers  bool
}

func (r *Rule) matches(c *Caller) bool {
	switch {
	case r.containers || c.Contained: // the ids of a container are nobody's, whoever else has such
		return r.containers && c.Contained
	case r.certificate != "":
		return c.Certificate != nil && (c.Certificate.Name == r.certificate || slices.Contains(c.Certificate.Names, r.certificate))
	case r.uid >= 0:
		return c.Certificate == nil && int64(c.UID) == r.uid
	}
	return r.gid >= 0 && c.In(uint32(r.gid))
}

// Rules are all of a file, or what holds without one.
type Rules struct {
	File    string // "": there is none
	Default Right  // of callers whom no rule names
	List    []Rule
	group   int64 // members of which may do everything where there is no file; -1: none
}

// Without is what holds where there is no file: root, the engine's own user, containers that were given the socket, members of the socket's
// group (-1: it has none) and who shows a certificate may do everything.
func Without(group int64) *Rules { return &Rules{group: group} }

// Of is what a caller may, and why.
func (r *Rules) Of(c *Caller) (Right, string) {
	switch {
	case c.Engine():
		return All, "root"
	case r == nil || r.File == "":
		return r.builtIn(c), "there are no rules of access"
	}
	may, why := r.written(c)
	if may == Own && c.Contained && c.Container == "" {
		return None, "it is a process of a container that is none of this engine's, so that nothing can be its own"
	}
	return may, why
}

func (r *Rules) written(c *Caller) (Right, string) {
	for i := range r.List {
		if rule := &r.List[i]; rule.matches(c) {
			return rule.May, fmt.Sprintf("%s:%d gives %s the right %s", r.File, rule.Line, rule.Who, rule.May)
		}
	}
	return r.Default, fmt.Sprintf("%s gives the right %s to whom it does not name", r.File, r.Default)
}

func (r *Rules) builtIn(c *Caller) Right {
	if c.Contained || c.Certificate != nil || r != nil && r.group >= 0 && c.In(uint32(r.group)) {
		return All
	}
	return None
}

// AllOf names those of the rules that give somebody everything.
func (r *Rules) AllOf() (who []string) {
	for _, rule := range r.List {
		if rule.May == All {
			who = append(who, rule.Who)
		}
	}
	return who
}

// Group finds a group's id by its name or number.
func Group(name string) (int64, error) {
	if n, err := strconv.ParseUint(name, 10, 31); err == nil {
		return int64(n), nil
	}
	g, err := user.LookupGroup(name)
	if err != nil {
		return -1, fmt.Errorf("there is no group %s on this machine", name)
	}
	n, err := strconv.ParseUint(g.Gid, 10, 31)
	return int64(n), err
}

func userID(name string) (int64, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return -1, fmt.Errorf("there is no user %s on this machine", name)
	}
	n, err := strconv.ParseUint(u.Uid, 10, 31)
	return int64(n), err
}

// Read reads the rules at path; "" means those at Path, if there are any. group is the one of the socket, -1 where it has none.
func Read(path string, group int64) (*Rules, error) {
	named := path != ""
	if !named {
		path = Path
	}
	text, err := os.ReadFile(path)
	switch {
	case errors.Is(err, os.ErrNotExist) && !named:
		return Without(group), nil
	case err != nil:
		return nil, fmt.Errorf("read the rules of access: %w", err)
	}
	var st unix.Stat_t
	switch err := unix.Stat(path, &st); {
	case err != nil:
		return nil, fmt.Errorf("read the rules of access: stat %s: %w", path, err)
	case st.Mode&0o022 != 0:
		return nil, fmt.Errorf("%s: others than its owner may write it, and so give themselves any right: chmod go-w %s", path, path)
	case st.Uid != 0 && int64(st.Uid) != int64(os.Geteuid()):
		return nil, fmt.Errorf("%s: it is user %d's, who may write it, and so give himself any right: chown root %s", path, st.Uid, path)
	}
	return Parse(path, text)
}
