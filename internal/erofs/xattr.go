package erofs

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
)

// prefix is how a name's beginning is written as a number.
type prefix struct {
	name  string
	index byte
}

// prefixes in the order in which they are tried.
func prefixes() [5]prefix {
	return [5]prefix{{"user.", 1}, {"system.posix_acl_access", 2}, {"system.posix_acl_default", 3}, {"trusted.", 4}, {"security.", 6}}
}

func splitXattr(name string) (index byte, rest string, err error) {
	for _, p := range prefixes() {
		rest, ok := strings.CutPrefix(name, p.name)
		whole := p.index == 2 || p.index == 3
		if ok && whole == (rest == "") && len(rest) <= maxName && strings.IndexByte(rest, 0) < 0 {
			return p.index, rest, nil
		}
	}
	return 0, "", fmt.Errorf("the extended attribute %.300q: %w", name, ErrInvalid)
}

// encodeXattrs writes attributes as they stand behind an inode; none are no bytes.
func encodeXattrs(list []Xattr) ([]byte, error) {
	if len(list) == 0 {
		return nil, nil
	}
	list = slices.Clone(list)
	slices.SortFunc(list, func(a, b Xattr) int { return strings.Compare(a.Name, b.Name) })
	out := make([]byte, xattrHead)
	for i, x := range list {
		if i > 0 && list[i-1].Name == x.Name {
			return nil, fmt.Errorf("the extended attribute %s comes twice: %w", x.Name, ErrInvalid)
		}
		index, rest, err := splitXattr(x.Name)
		if err != nil {
			return nil, err
		}
		if len(x.Value) > 0xffff {
			return nil, fmt.Errorf("the extended attribute %s has %d bytes, 65535 are the most: %w", x.Name, len(x.Value), ErrInvalid)
		}
		out = append(out, byte(len(rest)), index)
		out = binary.LittleEndian.AppendUint16(out, uint16(len(x.Value)))
		out = append(append(out, rest...), x.Value...)
		for len(out)%xattrEntry != 0 {
			out = append(out, 0)
		}
		if len(out) > maxXattrsBytes || i >= maxXattrsNumber {
			return nil, fmt.Errorf("extended attributes of more than %d bytes: %w", maxXattrsBytes, ErrInvalid)
		}
	}
	return out, nil
}

// decodeXattrs reads what encodeXattrs wrote.
func decodeXattrs(b []byte) ([]Xattr, error) {
	if len(b) == 0 {
		return nil, nil
	}
	if len(b) < xattrHead || b[4] != 0 {
		return nil, fmt.Errorf("shared extended attributes: %w", ErrDamaged)
	}
	var out []Xattr
	for b = b[xattrHead:]; len(b) > 0; {
		if len(b) < xattrEntry {
			return nil, fmt.Errorf("an extended attribute's end is missing: %w", ErrDamaged)
		}
		name, value := int(b[0]), int(binary.LittleEndian.Uint16(b[2:]))
		whole := xattrEntry + name + value
		if whole > len(b) {
			return nil, fmt.Errorf("an extended attribute's end is missing: %w", ErrDamaged)
		}
		x := Xattr{Value: slices.Clone(b[xattrEntry+name : whole])}
		for _, p := range prefixes() {
			if p.index == b[1] {
				x.Name = p.name + string(b[xattrEntry:xattrEntry+name])
			}
		}
		if x.Name == "" {
			return nil, fmt.Errorf("an extended attribute of kind %d: %w", b[1], ErrDamaged)
		}
		out = append(out, x)
		b = b[min(len(b), int(up(uint64(whole), xattrEntry))):]
	}
	return out, nil
}

// HoldsXattr says that an image can hold an extended attribute of this name.
func HoldsXattr(name string) bool {
	_, _, err := splitXattr(name)
	return err == nil
}
