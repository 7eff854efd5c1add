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
// those of packages do, keep it, also where the clock is wrong and they are from its future.
const Dated = "containerd.io/snapshot/wherry.dated"

// What more than either is many.
const (
	manyNames = 512
	manyBytes = 8 << 20
)

// Replaces labels a layer with files that are just as they are below, or a directory in the place of one below: who makes its archive leaves out what
// does not differ, the layer has all of it.
const Replaces = "containerd.io/snapshot/wherry.replaces"

// settled is what was seen of a snapshot's changes.
type settled struct {
	many     bool // they may stay a directory, and are to
	replaces bool // see Replaces
}

// settle gives files that are younger than the snapshot the date that its label names.
func settle(ctx context.Context, dir string, lower []string, info snapshots.Info) (seen settled, err error) {
	text, dated := info.Labels[Dated]
	now := time.Now().Unix()
	_, may := info.Labels[MayStayDirectory]
	if !dated && !may {
		return seen, nil
	}
	at, began := int64(0), int64(math.MaxInt64)
	if dated {
		if at, err = strconv.ParseInt(text, 10, 64); err != nil {
			return seen, fmt.Errorf("label %s: %w", Dated, err)
		}
		began = info.Created.Add(-time.Second).Unix() // the clock of files is a tick behind
	}
	top, err := os.OpenFile(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return seen, err
	}
	defer top.Close()
	var below notes
	defer below.close()
	if err := below.openAll(lower); err != nil {
		return seen, err
	}
	date := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Sec: at}}
	names, bytes := 0, int64(0)
	err = archive.Walk(ctx, top, archive.WalkOptions{OneMount: true}, func(e *archive.Entry) (bool, error) {
		names++
		bytes += e.Stat.Blocks * 512
		young := e.Stat.Mtim.Sec >= began && e.Stat.Mtim.Sec <= now
		was := e.Stat
		if young {
			was.Mtim = unix.Timespec{Sec: at}
		}
		if !seen.replaces {
			seen.replaces = e.IsDir() && isOpaque(e) || !e.IsDir() && below.has(e.Path, &was)
		}
		if !young {
			return e.IsDir(), nil
		}
		if err := unix.UtimesNanoAt(int(e.Dir.Fd()), e.Name, date, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return false, fmt.Errorf("date %s: %w", e.Path, err)
		}
		return e.IsDir(), nil
	})
	if err != nil {
		return seen, err
	}
	seen.many = may && (names > manyNames || bytes > manyBytes)
	var st unix.Stat_t
	if err := unix.Fstat(int(top.Fd()), &st); err != nil || st.Mtim.Sec < began || st.Mtim.Sec > now {
		return seen, err
	}
	return seen, unix.UtimesNanoAt(int(top.Fd()), ".", date, 0)
}

// isOpaque says that a directory hides one below, in the words of either kind of overlay (overlayfs.rst).
func isOpaque(e *archive.Entry) bool {
	f, err := archive.OpenBelow(e.Dir, e.Name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return true
	}
	defer f.Close()
	var value [1]byte
	for _, name := range []string{"trusted.overlay.opaque", "user.overlay.opaque"} {
		if n, err := unix.Fgetxattr(int(f.Fd()), name, value[:]); err == nil && n == 1 && value[0] == 'y' {
			return true
		}
	}
	return false
}
