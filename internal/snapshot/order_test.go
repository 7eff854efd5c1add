package snapshot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"

	"wherry.dev/wherry/internal/erofs"
)

// commitAll makes a layer in each way: an image that was written as such, changes that become one, and changes that stay a directory.
func commitAll(root string) error {
	ctx := context.Background()
	for _, format := range []Format{EROFS, Overlay} {
		s, err := Open(Options{Root: filepath.Join(root, string(format)), Mounts: filepath.Join(root, "layers"), Format: format})
		if err != nil {
			return err
		}
		if format == EROFS {
			if err := commitImage(ctx, s); err != nil {
				return err
			}
		}
		mounts, err := s.Prepare(ctx, "changes", "")
		if err == nil {
			err = os.WriteFile(filepath.Join(mounts[0].Source, "file"), []byte("content"), 0o600)
		}
		if err == nil {
			err = s.Commit(ctx, "committed", "changes")
		}
		if err := errors.Join(err, s.Images().Release(), s.Close()); err != nil {
			return err
		}
	}
	return nil
}

func commitImage(ctx context.Context, s *Snapshotter) error {
	mounts, err := s.Prepare(ctx, "unpack", "", snapshots.WithLabels(map[string]string{ForUnpacking: "yes"}))
	if err != nil {
		return err
	}
	i, err := NewImage(mounts[0].Source, ImageOptions{Base: true})
	if err != nil {
		return err
	}
	ino, err := i.w.AddFile(0, "file", 3, &erofs.Attr{Mode: 0o100644})
	if err == nil {
		_, err = i.w.Write([]byte(fmt.Sprint("no", ino)))
	}
	if err := errors.Join(err, i.Finish(), i.Settle(nil), i.Sync(), i.Close()); err != nil {
		return err
	}
	return s.Commit(ctx, "layer", "unpack")
}

// TestOrderOfWrites: data → sync → rename → metadata, by the system calls. Before the database is written to for the first time after a layer's
// last data, its file is on the disk, and so are the names on the way to it.
func TestOrderOfWrites(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	log := filepath.Join(t.TempDir(), "calls")
	cmd := exec.Command("strace", "-f", "-y", "-s", "0", "-o", log, "-e", "trace=pwrite64,write,ftruncate,fsync,fdatasync,syncfs,rename,renameat,renameat2", self)
	cmd.Env = append(os.Environ(), orderVariable+"="+root)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	b, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	calls := strings.Split(string(b), "\n")
	rows := map[string]struct {
		store, data string   // its last write
		then        []string // calls that follow, in this order
	}{
		"an image":                     {"erofs", "/snapshots/1/layer.erofs>", []string{"fsync /snapshots/1/layer.erofs>", "fsync /snapshots/1>", "fsync erofs/snapshots>"}},
		"changes that become an image": {"erofs", "/snapshots/2/layer.erofs.new>", []string{"fsync /snapshots/2/layer.erofs.new>", "rename /snapshots/2/layer.erofs\"", "fsync /snapshots/2>", "fsync erofs/snapshots>"}},
		"changes that stay":            {"overlay", "/snapshots/1/fs/file>", []string{"syncfs /snapshots/1/fs>"}},
	}
	isWrite := func(call string) bool {
		return strings.Contains(call, " pwrite64(") || strings.Contains(call, " write(") || strings.Contains(call, " ftruncate(")
	}
	for what, row := range rows {
		at := -1
		for i, call := range calls {
			if isWrite(call) && strings.Contains(call, row.store+row.data) {
				at = i
			}
		}
		if at < 0 {
			t.Errorf("%s: nothing is written", what)
			continue
		}
		then := row.then
		for _, call := range calls[at+1:] {
			if isWrite(call) && strings.Contains(call, row.store+"/metadata.db>") {
				break
			}
			if len(then) == 0 {
				continue
			}
			verb, path, _ := strings.Cut(then[0], " ")
			if strings.Contains(call, " "+verb) && strings.Contains(call, path) {
				then = then[1:]
			}
		}
		if len(then) > 0 {
			t.Errorf("%s: %q have not come before the record:\n%s", what, then, strings.Join(calls[at:min(len(calls), at+12)], "\n"))
		}
	}
}
