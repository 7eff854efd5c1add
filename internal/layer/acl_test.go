package layer

import (
	"archive/tar"
	"encoding/binary"
	"math"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// aclOf is a list of tags, permissions and ids.
func aclOf(list ...[3]uint32) string {
	b := []byte{aclVersion, 0, 0, 0}
	for _, e := range list {
		b = binary.LittleEndian.AppendUint16(b, uint16(e[0]))
		b = binary.LittleEndian.AppendUint16(b, uint16(e[1]))
		b = binary.LittleEndian.AppendUint32(b, e[2])
	}
	return string(b)
}

// TestAttributesAreAsTheKernelTakesThem: a layer is refused for the same ones on every file system, and the mode says what a list says.
func TestAttributesAreAsTheKernelTakesThem(t *testing.T) {
	const none = math.MaxUint32
	owner, group, other, mask, user := [3]uint32{aclOwner, 6, none}, [3]uint32{aclGroupOwner, 4, none}, [3]uint32{aclOther, 0, none}, [3]uint32{aclMask, 7, none}, [3]uint32{aclUser, 7, 1000}
	capability := func(head uint32, n int) string {
		return string(binary.LittleEndian.AppendUint32(nil, head)) + string(make([]byte, n))
	}
	for name, row := range map[string]struct {
		kind        byte
		key, value  string
		refused     bool
		mode, attrs int
	}{
		"a whole list":              {0, accessACL, aclOf(owner, user, group, mask, other), false, 0o670, 1},
		"a list of a directory":     {tar.TypeDir, accessACL, aclOf(owner, user, group, mask, other), false, 0o670, 1},
		"a list of a pipe":          {tar.TypeFifo, accessACL, aclOf(owner, user, group, mask, other), false, 0o670, 1},
		"a list of a link":          {tar.TypeSymlink, accessACL, aclOf(owner, user, group, mask, other), false, 0o777, 0},
		"a list that is the mode":   {0, accessACL, aclOf(owner, group, other), false, 0o640, 0},
		"a default list":            {tar.TypeDir, defaultACL, aclOf(owner, user, group, mask, other), false, 0o755, 1},
		"a default list of a file":  {0, defaultACL, aclOf(owner, user, group, mask, other), false, 0o755, 0},
		"an empty list":             {0, accessACL, aclOf(), false, 0o755, 0},
		"a list of another version": {0, accessACL, "\x01" + aclOf(owner, group, other)[1:], false, 0o755, 0},
		"a list out of order":       {0, accessACL, aclOf(other, owner, group), true, 0, 0},
		"a list without a mask":     {0, accessACL, aclOf(owner, user, group, other), true, 0, 0},
		"a list without an owner":   {0, accessACL, aclOf(group, other), true, 0, 0},
		"a list with two owners":    {0, accessACL, aclOf(owner, owner, group, other), true, 0, 0},
		"a list of more bits":       {0, accessACL, aclOf([3]uint32{aclOwner, 8, none}, group, other), true, 0, 0},
		"a list of nobody":          {0, accessACL, aclOf(owner, [3]uint32{aclUser, 7, none}, group, mask, other), true, 0, 0},
		"a list of another tag":     {0, accessACL, aclOf(owner, group, other, [3]uint32{0x40, 0, none}), true, 0, 0},
		"a list cut short":          {0, accessACL, aclOf(owner, group, other)[:9], true, 0, 0},
		"capabilities":              {0, capabilities, capability(0x02000001, 16), false, 0o755, 1},
		"capabilities with a root":  {0, capabilities, capability(0x03000000, 20), false, 0o755, 1},
		"capabilities of old":       {0, capabilities, capability(0x01000000, 8), true, 0, 0},
		"capabilities cut short":    {0, capabilities, capability(0x02000000, 12), true, 0, 0},
		"capabilities that are not": {0, capabilities, "bad", true, 0, 0},
		"an attribute of no name":   {0, "user.", "x", true, 0, 0},
	} {
		h := tar.Header{Name: "f", Typeflag: row.kind, Mode: 0o755, PAXRecords: map[string]string{pax + row.key: row.value}}
		if row.kind == tar.TypeSymlink {
			h.Linkname = "to"
		}
		e, err := entry(&h)
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
			e, err = entry(&h)
		}
		if (err != nil) != row.refused || err == nil && (e.Mode != uint32(row.mode) || len(e.Xattrs) != row.attrs) {
			t.Errorf("%s: %+v %v", name, e, err)
			continue
		}
		// The kernel is of the same mind.
		at, _, err := unpack(t, entries(t, h), DirOptions{})
		if errdefs.IsInvalidArgument(err) != row.refused || !row.refused && err != nil {
			t.Errorf("%s: %v", name, err)
		}
		var st unix.Stat_t
		if row.refused {
			continue
		}
		if err := unix.Lstat(at+"/f", &st); err != nil || st.Mode&0o7777 != uint32(row.mode) {
			t.Errorf("%s: it has mode %o, %v", name, st.Mode, err)
		}
	}
}

// TestTimesOfAllFileSystems: a layer's files have the same times, wherever it is unpacked.
func TestTimesOfAllFileSystems(t *testing.T) {
	for at, want := range map[int64]int64{0: 0, -1: -1, minTime - 1: minTime, math.MinInt64 / 2: minTime, 10413792000: 10413792000, maxTime + 1: maxTime, 1 << 60: maxTime} {
		e, err := entry(&tar.Header{Name: "f", Typeflag: tar.TypeReg, ModTime: time.Unix(at, 0)})
		if err != nil || e.ModTime.Unix() != want {
			t.Errorf("%d became %v, %v", at, e.ModTime.Unix(), err)
		}
	}
}

// TestMoreAttributesThanTheFileSystemKeeps: the disk is not full, and nobody says so.
func TestMoreAttributesThanTheFileSystemKeeps(t *testing.T) {
	large := map[string]string{pax + "user.a": string(make([]byte, 3000)), pax + "user.b": string(make([]byte, 3000)), pax + "user.c": string(make([]byte, 60000))}
	_, _, err := unpack(t, entries(t, tar.Header{Name: "f", PAXRecords: large}), DirOptions{})
	if err != nil && !errdefs.IsInvalidArgument(err) {
		t.Error(err)
	}
}
