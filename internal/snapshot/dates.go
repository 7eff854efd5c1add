package snapshot

import (
	"context"
	"fmt"
	"math"
	"os"
	"strconv"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/archive"
)

// Dated labels a snapshot with the date, in seconds since 1970, of all that is written to it: when it is committed, what is younger than
// the snapshot itself gets it. What is made of the same sources is then the same whenever it is made; files that came with a date of their own, as
// those of packages do, keep it.
const Dated = "containerd.io/snapshot/wherry.dated"

// What more than either is many.
const (
	manyNames = 512
	manyBytes = 8 << 20
)

// settle gives files that are younger than the snapshot the date that its label names. many says that the changes may stay a directory, and are
// to.
func settle(ctx context.Context, dir string, info snapshots.Info) (many bool, err error) {
	text, dated := info.Labels[Dated]
	_, may := info.Labels[MayStayDirectory]
	if !dated && !may {
		return false, nil
	}
	at, began := int64(0), int64(math.MaxInt64)
	if dated {
		if at, err = strconv.ParseInt(text, 10, 64); err != nil {
			return false, fmt.Errorf("label %s: %w", Dated, err)
		}
		began = info.Created.Add(-time.Second).Unix() // the clock of files is a tick behind
	}
	top, err := os.OpenFile(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return false, err
	}
	defer top.Close()
	date := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Sec: at}}
	names, bytes := 0, int64(0)
	err = archive.Walk(ctx, top, archive.WalkOptions{OneMount: true}, func(e *archive.Entry) (bool, error) {
		names++
		bytes += e.Stat.Blocks * 512
		if e.Stat.Mtim.Sec < began {
			return e.IsDir(), nil
		}
		if err := unix.UtimesNanoAt(int(e.Dir.Fd()), e.Name, date, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return false, fmt.Errorf("date %s: %w", e.Path, err)
		}
		return e.IsDir(), nil
	})
	if err != nil {
		return false, err
	}
	many = may && (names > manyNames || bytes > manyBytes)
	var st unix.Stat_t
	if err := unix.Fstat(int(top.Fd()), &st); err != nil || st.Mtim.Sec < began {
		return many, err
	}
	return many, unix.UtimesNanoAt(int(top.Fd()), ".", date, 0)
}
