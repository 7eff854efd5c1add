package container

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"wherry.dev/wherry/internal/rootfs"
)

// maxAccounts bounds what is read of a container's passwd and group files, which are its own to fill, and maxFields what a line is split
// into: passwd(5) has seven.
const (
	maxAccounts = 1 << 20
	maxFields   = 8
	maxGroups   = 1 << 16 // the kernel's NGROUPS_MAX
)

// accounts find users and groups in the files of a root file system.
type accounts struct {
	open func(name string) (*os.File, error) // opens a regular file inside, and nothing else
}

// FindUser finds the user that -u names ("", NAME|UID[:GROUP|GID]) in a root file system; open opens a regular file in it, and nothing else.
func FindUser(text string, open func(name string) (*os.File, error)) (uid, gid uint32, err error) {
	who, err := accounts{open: open}.find(text, nil)
	return who.user.UID, who.user.GID, err
}

// identity is who a process is.
type identity struct {
	user specs.User
	home string
}

// find reads who -u ("", NAME|UID[:GROUP|GID]) and --group-add say, by the rules of all runtimes: numbers need no entry, names do. Groups
// that list the user are had, unless -u names a group.
func (a accounts) find(text string, extra []string) (identity, error) {
	who := identity{home: "/"}
	userText, groupText, hasGroup := strings.Cut(text, ":")
	if userText == "" {
		userText = "0"
	}
	users, userErr := a.read("/etc/passwd")
	groups, groupErr := a.read("/etc/group")
	name := ""
	entry := match(users, userText)
	id, numberErr := parseID(userText)
	switch {
	case entry != nil:
		var uidErr, gidErr error
		name = entry[0]
		who.user.UID, uidErr = parseID(field(entry, 2))
		who.user.GID, gidErr = parseID(field(entry, 3))
		if err := errors.Join(uidErr, gidErr); err != nil {
			return who, invalid("unable to find user %s: its line in /etc/passwd of the image is damaged: %v", userText, err)
		}
		if home := field(entry, 5); strings.HasPrefix(home, "/") {
			who.home = home
		}
	case numberErr == nil:
		who.user.UID = id
	default:
		return who, missing("user", userText, "passwd", userErr)
	}
	member := func(e []string) bool { return name != "" && slices.Contains(strings.Split(field(e, 3), ","), name) }
	if hasGroup && groupText != "" {
		gid, err := group(groups, groupText, groupErr)
		if err != nil {
			return who, err
		}
		who.user.GID = gid
		member = func([]string) bool { return false }
	}
	return who.addGroups(groups, member, extra, groupErr)
}

// addGroups fills in the additional groups. The first one is among them, so that leaving it takes nothing away (CVE-2022-36109).
func (who identity) addGroups(groups [][]string, member func([]string) bool, extra []string, groupErr error) (identity, error) {
	list := []uint32{who.user.GID}
	for _, e := range groups {
		if gid, err := parseID(field(e, 2)); err == nil && member(e) {
			list = append(list, gid)
		}
	}
	for _, g := range extra {
		gid, err := group(groups, g, groupErr)
		if err != nil {
			return who, err
		}
		list = append(list, gid)
	}
	slices.Sort(list)
	who.user.AdditionalGids = slices.Compact(list)
	if n := len(who.user.AdditionalGids); n > maxGroups {
		return who, invalid("the user is a member of %d groups, %d are the most that a process can have: see /etc/group of the image", n, maxGroups)
	}
	return who, nil
}

// fits checks that all ids lie in a range of ids.
func (who identity) fits(size uint32) error {
	if size == 0 {
		return nil
	}
	for _, id := range append([]uint32{who.user.UID, who.user.GID}, who.user.AdditionalGids...) {
		if id >= size {
			return invalid("the id %d is outside of the container's own %d ids: use a smaller one, or --userns=host", id, size)
		}
	}
	return nil
}

func group(groups [][]string, text string, readErr error) (uint32, error) {
	if e := match(groups, text); e != nil {
		gid, err := parseID(field(e, 2))
		if err != nil {
			return 0, invalid("unable to find group %s: its line in /etc/group of the image is damaged: %v", text, err)
		}
		return gid, nil
	}
	if gid, err := parseID(text); err == nil {
		return gid, nil
	}
	return 0, missing("group", text, "group", readErr)
}

func missing(kind, name, file string, readErr error) error {
	if _, err := strconv.ParseInt(name, 10, 64); err == nil {
		return invalid("unable to find %s %s: uids and gids must be in range 0-%d", kind, name, math.MaxInt32)
	}
	if readErr != nil && !errors.Is(readErr, fs.ErrNotExist) {
		return invalid("unable to find %s %s: %v", kind, name, readErr)
	}
	return invalid("unable to find %s %s: no matching entries in %s file", kind, name, file)
}

// match finds an entry by number where the text is one, else by name. A number is never a name: the image's files would decide whom it means
// (CVE-2016-3697).
func match(entries [][]string, text string) []string {
	_, err := strconv.Atoi(text)
	number := err == nil || errors.Is(err, strconv.ErrRange)
	id, none := parseID(text)
	for _, e := range entries {
		if !number && e[0] == text {
			return e
		}
		if n, err := parseID(field(e, 2)); number && none == nil && err == nil && n == id {
			return e
		}
	}
	return nil
}

func field(entry []string, i int) string {
	if i < len(entry) {
		return entry[i]
	}
	return ""
}

func parseID(text string) (uint32, error) {
	n, err := strconv.ParseUint(text, 10, 31)
	return uint32(n), err
}

// read gives the lines of passwd(5) or group(5), split at colons.
func (a accounts) read(name string) ([][]string, error) {
	f, err := a.open(name)
	if errors.Is(err, rootfs.ErrSpecial) {
		return nil, fmt.Errorf("%s of the image is not a file: %w", name, errdefs.ErrInvalidArgument)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !fi.Mode().IsRegular() {
		return nil, fmt.Errorf("%s of the image is not a file: %w", name, errdefs.ErrInvalidArgument)
	}
	if fi.Size() > maxAccounts {
		return nil, fmt.Errorf("%s of the image has %d bytes, %d are the most: %w", name, fi.Size(), maxAccounts, errdefs.ErrInvalidArgument)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxAccounts))
	if err != nil {
		return nil, err
	}
	var out [][]string
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		out = append(out, strings.SplitN(line, ":", maxFields))
	}
	return out, nil
}
