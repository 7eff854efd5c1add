package layer

import (
	"encoding/binary"
	"errors"
	"math"
)

// An access control list as an attribute has it (linux/posix_acl_xattr.h): a version, and entries of tag, permissions and id.
const (
	accessACL  = "system.posix_acl_access"
	aclVersion = 2
	aclHead    = 4
	aclEntry   = 8

	aclOwner, aclUser, aclGroupOwner, aclGroup, aclMask, aclOther = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
)

var errACL = errors.New("its access control list is none that a kernel takes")

// acl is what a list says. Images keep attributes as they are, and no file system makes anything of a list that is wrong: it is held against
// what the kernel asks of one.
type acl struct {
	mode  uint32 // permissions
	plain bool   // the mode says all of it
}

// readACL reads a list; ok is false for one that is passed over: it is empty, or of another version.
func readACL(b []byte) (list acl, ok bool, err error) {
	if len(b) < aclHead || (len(b)-aclHead)%aclEntry != 0 {
		return list, false, errACL
	}
	if len(b) == aclHead || binary.LittleEndian.Uint32(b) != aclVersion {
		return list, false, nil
	}
	last, named, masked, group := uint16(0), false, false, uint32(0)
	seen := uint16(0)
	for b = b[aclHead:]; len(b) > 0; b = b[aclEntry:] {
		tag, perm, id := binary.LittleEndian.Uint16(b), uint32(binary.LittleEndian.Uint16(b[2:])), binary.LittleEndian.Uint32(b[4:])
		several := tag == aclUser || tag == aclGroup
		if perm > 7 || tag < last || tag == last && !several || several && id == math.MaxUint32 {
			return list, false, errACL
		}
		last, seen = tag, seen|tag
		switch tag {
		case aclOwner:
			list.mode |= perm << 6
		case aclGroupOwner:
			group = perm
		case aclUser, aclGroup:
			named = true
		case aclMask:
			masked = true
			list.mode |= perm << 3
		case aclOther:
			list.mode |= perm
		default:
			return list, false, errACL
		}
	}
	if seen&(aclOwner|aclGroupOwner|aclOther) != aclOwner|aclGroupOwner|aclOther || named && !masked {
		return list, false, errACL
	}
	if !masked {
		list.mode |= group << 3
		list.plain = true
	}
	return list, true, nil
}

// takesACL sees to it that a list and the mode say the same, as they do on every file system. keep is false for a list that is not needed.
func (e *Entry) takesACL(name string, value []byte) (keep bool, err error) {
	list, ok, err := readACL(value)
	switch {
	case err != nil || !ok || e.Kind == Symlink:
		return false, err
	case name == defaultACL:
		return e.Kind == Directory, nil // other files have none
	}
	e.Mode = e.Mode&^permissions | list.mode
	return !list.plain, nil
}

var errCapabilities = errors.New("its capabilities are none that a kernel takes")

// checkCapabilities holds those of a file against their forms (linux/capability.h): of version 2, or 3 with the id of a user namespace's root.
func checkCapabilities(value []byte) error {
	const effective = 1
	sizes := map[uint32]int{0x02000000: 20, 0x03000000: 24}
	if len(value) < 4 || sizes[binary.LittleEndian.Uint32(value)&^effective] != len(value) {
		return errCapabilities
	}
	return nil
}
