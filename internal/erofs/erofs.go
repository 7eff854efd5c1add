// Package erofs writes and reads EROFS images: a layer's files in one file, which the kernel mounts read-only.
//
// A Writer takes files in any order and writes their data as it comes; names and inodes are kept, some hundred bytes each, until Finish
// writes them behind the data. Images are not compressed. A Reader reads what a Writer wrote, and holds every number that the image
// contains against the image's size. Neither is safe for several goroutines at once, except where a Reader says so.
//
// The format is the kernel's (Documentation/filesystems/erofs.rst, fs/erofs/erofs_fs.h):
//
//	0      nothing
//	1024   superblock, 128 bytes
//	4096   data of files, each from a block's start (of a page's start, where it is that long)
//	…      blocks of directories
//	…      inodes of 64 bytes, each followed by its extended attributes, and by what is left of a directory or by a link's target
package erofs

import (
	"errors"
	"fmt"
)

const (
	magic           = 0xE0F5E1E2
	superAt         = 1024
	superSize       = 128
	compatChecksum  = 1 << 0
	compatMtime     = 1 << 1
	page            = 4096
	inodeSize       = 64 // the extended form, which has times in nanoseconds
	slot            = 32 // inodes are numbered by these
	direntSize      = 12
	xattrHead       = 12 // before an inode's attributes
	xattrEntry      = 4  // before each
	layoutPlain     = 0  // an inode's data are blocks
	layoutInline    = 2  // what does not fill a block stands behind the inode
	noBlock         = 0xFFFFFFFF
	maxName         = 255
	maxTarget       = 4095
	maxPath         = 64 << 10 // that a Reader follows
	defaultBits     = 9
	firstInode      = 64 // number 0 is left out: names with it are not listed
	typeMask        = 0o170000
	typeFifo        = 0o010000
	typeChar        = 0o020000
	typeDir         = 0o040000
	typeBlock       = 0o060000
	typeRegular     = 0o100000
	typeLink        = 0o120000
	typeSocket      = 0o140000
	permissionMask  = 0o7777
	maxXattrsBytes  = 64 << 10
	maxXattrsNumber = 1024
	makerAt         = 64 // in the superblock: the volume's name, which says who wrote it
	makerSize       = 16 // with a zero at its end
)

// Maker is the name of the Writer that an image is of: by the same one, the same files become the same bytes. It changes with these.
const Maker = "wherry-1"

// Errors of what was asked for. ErrDamaged comes from a Reader.
var (
	ErrInvalid = errors.New("this cannot stand in an image")
	ErrDamaged = errors.New("the image is damaged")
	ErrTooMany = fmt.Errorf("there are more files than are kept in memory: %w", ErrInvalid)
)

// Attr is what an inode says of a file.
type Attr struct {
	Mode     uint32 // type and permissions, as in stat(2)
	UID, GID uint32
	Sec      int64 // of the last change of its content
	Nsec     uint32
	Rdev     uint32 // of devices: Device(major, minor); 0 is a whiteout's
	Xattrs   []Xattr
}

// Xattr is an extended attribute with its whole name, such as security.capability.
type Xattr struct {
	Name  string
	Value []byte
}

// IsDir says that these are a directory's.
func (a *Attr) IsDir() bool { return a.Mode&typeMask == typeDir }

// Device is a device's number as an inode has it.
func Device(major, minor uint32) uint32 { return minor&0xff | major<<8 | minor&^0xff<<12 }

// MajorMinor takes a device's number apart.
func MajorMinor(rdev uint32) (major, minor uint32) {
	return rdev >> 8 & 0xfff, rdev&0xff | rdev>>12&^0xff
}

// kinds are the types of files as directories name them.
func kind(mode uint32) (k byte, ok bool) {
	switch mode & typeMask {
	case typeRegular:
		return 1, true
	case typeDir:
		return 2, true
	case typeChar:
		return 3, true
	case typeBlock:
		return 4, true
	case typeFifo:
		return 5, true
	case typeSocket:
		return 6, true
	case typeLink:
		return 7, true
	}
	return 0, false
}

func checkName(name string) error {
	if name == "" || name == "." || name == ".." || len(name) > maxName {
		return fmt.Errorf("the name %.300q: %w", name, ErrInvalid)
	}
	for i := range len(name) {
		if name[i] == '/' || name[i] == 0 {
			return fmt.Errorf("the name %q: %w", name, ErrInvalid)
		}
	}
	return nil
}

func up(n, to uint64) uint64 { return (n + to - 1) &^ (to - 1) }
