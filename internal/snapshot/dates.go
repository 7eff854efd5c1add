package snapshot

import (
	"context"
	"fmt"
	"os"
	"strconv"

	"github.com/containerd/containerd/v2/core/snapshots"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/archive"
)

// NoLaterThan labels a snapshot whose files are to have no later date when it is committed: seconds since 1970. What is made of the same
// sources is then the same whenever it is made.
const NoLaterThan = "containerd.io/snapshot/wherry.no-later-than"

// settleDates gives files that are younger than the snapshot's label allows the date that it names.
func settleDates(ctx context.Context, dir string, info snapshots.Info) error {
	text, ok := info.Labels[NoLaterThan]
	if !ok {
		return nil
	}
	limit, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return fmt.Errorf("label %s: %w", NoLaterThan, err)
	}
	top, err := os.OpenFile(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer top.Close()
	date := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Sec: limit}}
	err = archive.Walk(ctx, top, archive.WalkOptions{OneMount: true}, func(e *archive.Entry) (bool, error) {
		if m := e.Stat.Mtim; m.Sec < limit || m.Sec == limit && m.Nsec == 0 {
			return e.IsDir(), nil
		}
		if err := unix.UtimesNanoAt(int(e.Dir.Fd()), e.Name, date, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return false, fmt.Errorf("date %s: %w", e.Path, err)
		}
		return e.IsDir(), nil
	})
	if err != nil {
		return err
	}
	return unix.UtimesNanoAt(int(top.Fd()), ".", date, 0)
}
