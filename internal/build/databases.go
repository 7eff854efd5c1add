package build

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/moby/buildkit/cache/metadata"
	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/util/db"
	"github.com/moby/buildkit/util/db/boltutil"
	bolt "go.etcd.io/bbolt"

	"wherry.dev/wherry/internal/image"
)

// The databases of builds, below root.
const (
	metadataFile = "metadata.db" // records of the cache; there once anything was built
	cacheFile    = "cache.db"    // which result has which inputs
	historyFile  = "history.db"  // what was built
	historyDir   = "history"     // what was said of it
	unsyncedFile = "unsynced"    // of the boot in which the others were written to without being synced
)

// settleAfter is how long after the last build what it has written is synced.
const settleAfter = 2 * time.Second

// databases keep the disk from being waited for while something is built, which is for half of the time of a build that changes nothing. They are
// synced after it. Where power fails in between, nobody can say what they hold: then they are begun anew, and the build cache is empty.
// Images are not in them.
type databases struct {
	root, boot string
	log        func(error)
	lazy       []func(lazy bool) error       // of those that are synced at other times
	hold       func() (release func() error) // keeps what builds may have mounted; nil: nothing

	mu      sync.Mutex // guards what follows
	dirty   bool       // there is a mark
	writers int
	release func() error // of hold
	settler *time.Timer
	closed  bool
	settles sync.WaitGroup
}

// openDatabases looks whether those that are there can be trusted, and removes them where not.
func openDatabases(root string, log func(error)) (*databases, error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil, err
	}
	d := &databases{root: root, boot: strings.TrimSpace(string(boot)), log: log}
	mark, err := os.ReadFile(d.path(unsyncedFile))
	if errors.Is(err, os.ErrNotExist) {
		return d, nil
	}
	if err != nil {
		return nil, err
	}
	if string(bytes.TrimSpace(mark)) == d.boot {
		d.dirty = true // of a life that was killed: what it wrote is whole, as the kernel has it, but for power
		return d, d.clean()
	}
	log(errors.New("power failed while something was built, or right after it: the build cache is begun anew"))
	for _, name := range []string{metadataFile, cacheFile, historyFile, historyDir} {
		if err := os.RemoveAll(d.path(name)); err != nil {
			return nil, err
		}
	}
	return d, errors.Join(syncPath(root), os.Remove(d.path(unsyncedFile)), syncPath(root))
}

// settleLeft syncs what an engine that was killed has left unsynced: nothing may be built for a long time.
func settleLeft(root string, log func(error)) error {
	if _, err := os.Stat(root); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	_, err := openDatabases(root, log)
	return err
}

// letGo frees what a build cache held of which it has no record: all of it where it is begun anew, and what was made right before an engine was
// killed. BuildKit holds first and records then, and looks for no leases at its start.
func letGo(ctx context.Context, g image.Ground, recorded map[string]bool) error {
	ctx = namespaces.WithNamespace(ctx, g.Namespace)
	list, err := g.Leases.List(ctx, fmt.Sprintf("labels.%q==%s", image.LeasePurpose, image.ForBuilds))
	if err != nil {
		return fmt.Errorf("list what builds held: %w", err)
	}
	gone := false
	for _, l := range list {
		if id, _, _ := strings.Cut(l.ID, "-"); recorded[id] { // a record has up to three: ID, ID-view and ID-variants
			continue
		}
		if err := g.Leases.Delete(ctx, l); err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("let go of what build %s held: %w", l.ID, err)
		}
		gone = true
	}
	if gone {
		_, err = g.Collect(ctx)
	}
	return err
}

// recordsOf are the ids of a cache's records.
func recordsOf(md *metadata.Store) (map[string]bool, error) {
	all, err := md.All()
	if err != nil {
		return nil, fmt.Errorf("list the build cache: %w", err)
	}
	ids := make(map[string]bool, len(all))
	for _, record := range all {
		ids[record.ID()] = true
	}
	return ids, nil
}

func (d *databases) path(name string) string { return filepath.Join(d.root, name) }

// begin is called before a build writes, and the function that it returns after it.
func (d *databases) begin() (end func(), err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.mark(); err != nil {
		return nil, err
	}
	if d.writers++; d.writers == 1 {
		for _, set := range d.lazy {
			if err := set(true); err != nil {
				d.writers--
				return nil, err
			}
		}
		if d.hold != nil && d.release == nil {
			d.release = d.hold()
		}
	}
	return sync.OnceFunc(func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.writers--
		d.later()
	}), nil
}

// touch is called before something is written outside of builds.
func (d *databases) touch() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	defer d.later()
	return d.mark()
}

// mark notes durably that there is something that is not. mu is held.
func (d *databases) mark() error {
	if d.dirty {
		return nil
	}
	f, err := os.OpenFile(d.path(unsyncedFile), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("mark the databases of builds: %w", err)
	}
	_, err = f.WriteString(d.boot + "\n")
	if err = errors.Join(err, f.Sync(), f.Close(), syncPath(d.root)); err != nil {
		return fmt.Errorf("mark the databases of builds: %w", err)
	}
	d.dirty = true
	return nil
}

// later settles when nothing has been written for a while. mu is held.
func (d *databases) later() {
	if d.writers > 0 || d.closed {
		return
	}
	if d.settler != nil && d.settler.Stop() {
		d.settles.Done()
	}
	d.settles.Add(1)
	d.settler = time.AfterFunc(settleAfter, func() {
		defer d.settles.Done()
		if err := d.settle(); err != nil {
			d.log(err)
		}
	})
}

// settle syncs, takes the mark away, and lets go of what was held.
func (d *databases) settle() error {
	err := d.synced()
	d.mu.Lock()
	if d.writers > 0 || d.release == nil {
		d.mu.Unlock()
		return err
	}
	release := d.release
	d.release = nil
	d.mu.Unlock()
	return errors.Join(err, release()) // without the lock, which builds wait for
}

func (d *databases) synced() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.writers > 0 || !d.dirty {
		return nil
	}
	for _, set := range d.lazy {
		if err := set(false); err != nil {
			return err
		}
	}
	return d.clean()
}

// clean syncs what is there and takes the mark away. mu is held, or everything is closed.
func (d *databases) clean() error {
	for _, name := range []string{metadataFile, cacheFile, historyFile, filepath.Join(historyDir, metadataFile)} {
		if err := syncPath(d.path(name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("sync the databases of builds: %w", err)
		}
	}
	if err := errors.Join(syncPath(d.root), os.Remove(d.path(unsyncedFile)), syncPath(d.root)); err != nil {
		return fmt.Errorf("take the mark of the databases of builds away: %w", err)
	}
	d.dirty = false
	return nil
}

// stop ends what is under way; the databases can be closed then.
func (d *databases) stop() error {
	d.mu.Lock()
	d.closed = true
	if d.settler != nil && d.settler.Stop() {
		d.settles.Done()
	}
	d.mu.Unlock()
	d.settles.Wait()
	return nil
}

// close settles when the databases are closed.
func (d *databases) close() error {
	if !d.dirty {
		return nil
	}
	return d.clean()
}

func syncPath(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// open opens a database that is never synced by itself. One that cannot be read is set aside.
func (d *databases) open(name string) (db.DB, error) {
	opened, err := boltutil.SafeOpen(d.path(name), 0o600, &bolt.Options{FreelistType: bolt.FreelistMapType, NoFreelistSync: true, NoSync: true})
	if err != nil {
		return nil, err
	}
	return touched{opened, d}, nil
}

// lazily has a database that syncs by itself not do so while something is built.
func (d *databases) lazily(t db.Transactor) {
	d.lazy = append(d.lazy, func(lazy bool) error {
		return t.Update(func(tx *bolt.Tx) error { tx.DB().NoSync = lazy; return nil }) // in a transaction, since others read it in theirs
	})
}

// touched is a database that is never synced by itself.
type touched struct {
	db.DB
	d *databases
}

// Update marks first, and once more after it, as all may have been synced while it took its time.
func (t touched) Update(fn func(*bolt.Tx) error) error {
	if err := t.d.touch(); err != nil {
		return err
	}
	err := t.DB.Update(fn)
	if again := t.d.touch(); err == nil {
		err = again // otherwise fn's own, that callers compare
	}
	return err
}

// touchedKeys are the results of builds, in a database that is never synced by itself.
type touchedKeys struct {
	solver.CacheKeyStorage
	d *databases
}

// AddResult marks first.
func (t touchedKeys) AddResult(id string, res solver.CacheResult) error {
	return errors.Join(t.d.touch(), t.CacheKeyStorage.AddResult(id, res))
}

// Release marks first.
func (t touchedKeys) Release(resultID string) error {
	return errors.Join(t.d.touch(), t.CacheKeyStorage.Release(resultID))
}

// AddLink marks first.
func (t touchedKeys) AddLink(id string, link solver.CacheInfoLink, target string) error {
	return errors.Join(t.d.touch(), t.CacheKeyStorage.AddLink(id, link, target))
}
