// Package layer reads an image's layers: streams of tar, plain or compressed, each once from its beginning to its end.
//
// Unpack decompresses a layer, hashes the tar while it passes, holds it against what a stream may become, takes it apart into entries that
// have been checked, and gives these to a Sink in the tar's order. A Dir is the Sink that writes directories for the overlay file system.
// Nothing of a layer's making is resolved by a path on the host. Memory does not grow with a layer's size. Unpack has goroutines of its
// own, which have ended when it returns; a Sink is called from one goroutine.
package layer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// Kind is what an entry is.
type Kind uint8

// The kinds. A Whiteout and an Opaque are not files: they take away what the layers below have.
const (
	Directory Kind = iota + 1
	File
	Symlink
	Hardlink // one more name for a file that came before in this layer
	CharDevice
	BlockDevice
	Fifo
	Whiteout // the layers below lose the name Path; what this layer has there itself, before or after, stays
	Opaque   // the layers below lose all that is in the directory Path, but not the directory
)

// Links is the directory in which layers of the aufs file system, which Docker once had, keep the content of files with several names. It is
// none of the layer's files: they are hard links to what is in it, and a sink takes it away in the end.
const Links = ".wh..wh.plnk"

// Entry is one file of a layer, or the loss of one. It has been checked: every sink may rely on what stands here.
type Entry struct {
	// Path is relative and clean: no "." or "..", no empty component, each of at most 255 bytes, all of at most 4095; "" is the root, which
	// only a Directory or an Opaque can be.
	//
	// Parents may be missing; a sink makes them as directories, remembers that the layer never named them, and gives them the attributes of the
	// layers below once these are known. A parent that is a symbolic link of this layer is followed, within this layer's root. An entry takes
	// the place of one that came before under its name, but a Directory keeps what is in the directory that it meets.
	Path     string
	Kind     Kind
	Mode     uint32 // permissions with setuid, setgid and sticky bits: at most 07777
	UID, GID uint32
	ModTime  time.Time
	Size     int64  // of a File: how much its body has
	Sparse   bool   // of a File: its body has long runs of zeros, which were holes
	Target   string // of a Symlink: its text, 1 to 4095 bytes; of a Hardlink: the other name, as Path
	Major    uint32 // of devices, at most 4095
	Minor    uint32 // at most 1<<20 - 1
	Xattrs   []Xattr
}

// Xattr is an extended attribute with its whole name, such as security.capability; none of the overlay file system's own comes to a sink.
type Xattr struct {
	Name  string
	Value []byte
}

// Sink takes a layer's entries.
type Sink interface {
	// Add takes the next entry. body is that of a File, and nil for all else; it is of no use after Add has returned, and what Add leaves of it
	// is passed over. The entry is the sink's to keep. After an error nothing more comes.
	Add(e *Entry, body io.Reader) error
}

// Sums are what a layer turned out to be.
type Sums struct {
	Diff digest.Digest // of the tar: the diff ID
	Size int64         // of the tar
}

// Unpack reads a layer's stream to its end, gives what is in it to the sink, and closes the stream: that has to end a Read under way.
func Unpack(ctx context.Context, r io.ReadCloser, sink Sink) (Sums, error) {
	return unpackWithin(ctx, r, sink, maxWindow)
}

func unpackWithin(ctx context.Context, r io.ReadCloser, sink Sink, window uint64) (Sums, error) {
	defer r.Close()
	plain, err := decompress(r, window)
	if err != nil {
		return Sums{}, err
	}
	ahead := readAhead(ctx, plain)
	err = parse(ahead, sink)
	if err == nil {
		// What stands behind the archive's end counts too.
		_, err = io.Copy(io.Discard, ahead)
	}
	if err != nil {
		_ = r.Close()
	}
	sums, closed := ahead.close()
	if err == nil {
		err = closed
	}
	if cause := context.Cause(ctx); err != nil && cause != nil && !errors.Is(err, cause) {
		err = fmt.Errorf("%w: %w", cause, err)
	}
	return sums, err
}

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %w", fmt.Errorf(format, args...), errdefs.ErrInvalidArgument)
}
