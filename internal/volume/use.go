package volume

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/volume"

	"wherry.dev/wherry/internal/access"
)

// Acquire notes that a container refers to the volume (created on demand), mounts what its options say, and returns its data directory,
// and whether it is empty (then the caller copies the image's content up on first use). A container may acquire what it has: at each start
// it does, since mounts end with a reboot. References live in memory: containers are re-acquired when the engine starts. Where the mount
// fails the container still refers to the volume, until it releases it.
func (s *Service) Acquire(ctx context.Context, name, containerID string) (dir string, fresh bool, err error) {
	e, err := s.refer(ctx, name, containerID)
	if err != nil {
		return "", false, err
	}
	dir = s.data(name)
	if err = s.prepare(ctx, e, containerID); err == nil {
		fresh, err = empty(dir)
	}
	if err != nil {
		return "", false, fmt.Errorf("volume %s: %w", name, err)
	}
	return dir, fresh, nil
}

// Tell says that a container has mounted the volume, at its start, or unmounted it, at its end. A volume that is not there was nobody's.
func (s *Service) Tell(action events.Action, name string, attributes map[string]string) {
	s.mu.Lock()
	e := s.all[name]
	s.mu.Unlock()
	if e == nil {
		return
	}
	attributes["driver"], attributes[access.OwnerAttribute] = e.driver(), e.Owner
	s.events.Publish(events.VolumeEventType, action, name, attributes)
}

// Keep notes that a container has had the volume before the engine was started. Drivers are not asked: what runs is mounted, and what does not will be
// when it starts.
func (s *Service) Keep(ctx context.Context, name, containerID string, runs bool) error {
	s.mu.Lock()
	e := s.all[name]
	s.mu.Unlock()
	if e == nil || e.Driver == "" {
		_, _, err := s.Acquire(ctx, name, containerID)
		return err
	}
	s.mu.Lock()
	e.refs[containerID] = struct{}{}
	s.mu.Unlock()
	if runs {
		e.mount.Lock()
		defer e.mount.Unlock()
		e.use(containerID)
	}
	return nil
}

// refer adds the reference before anything slow is done, so that nobody removes the volume meanwhile.
func (s *Service) refer(ctx context.Context, name, containerID string) (*entry, error) {
	for {
		e, err := s.create(ctx, volume.CreateRequest{Name: name}, "")
		if err != nil {
			return nil, err
		}
		s.mu.Lock()
		if s.all[name] == e {
			e.refs[containerID] = struct{}{}
			s.mu.Unlock()
			return e, nil
		}
		s.mu.Unlock() // removed in between
	}
}

// prepare mounts what the volume's options say, or its driver has, at its first use.
func (s *Service) prepare(ctx context.Context, e *entry, containerID string) error {
	if e.Driver != "" {
		return mountFor(ctx, s, e, containerID)
	}
	from, err := parseOptions(e.Options)
	if err != nil || from == nil {
		return err
	}
	e.mount.Lock()
	defer e.mount.Unlock()
	if is, err := mounted(s.data(e.Name)); err != nil || is {
		return err
	}
	return from.mountOn(ctx, s.data(e.Name))
}

func empty(dir string) (bool, error) {
	f, err := os.Open(dir)
	if err != nil {
		return false, err
	}
	defer f.Close()
	names, _ := f.Readdirnames(2) // a file system's own lost+found does not count
	names = slices.DeleteFunc(names, func(n string) bool { return n == "lost+found" })
	return len(names) == 0, nil
}

// Release takes a container's reference back; the last one unmounts what the options mounted.
func (s *Service) Release(ctx context.Context, name, containerID string) {
	s.mu.Lock()
	e := s.all[name]
	if e == nil {
		s.mu.Unlock()
		return
	}
	_, had := e.refs[containerID]
	delete(e.refs, containerID)
	s.mu.Unlock()
	if e.Driver != "" {
		unmountFor(ctx, s, e, containerID)
		return
	}
	if !had || len(e.Options) == 0 {
		return
	}
	e.mount.Lock()
	defer e.mount.Unlock()
	s.mu.Lock()
	unused := len(e.refs) == 0
	s.mu.Unlock()
	if unused { // who refers to it from here on waits for e.mount
		if err := unmount(s.data(name)); err != nil { // its removal will insist
			s.log(fmt.Errorf("volume %s is not used any more but stays mounted: %w", name, err))
		}
	}
}

// Remove refuses with errdefs.ErrFailedPrecondition (409) while a container refers to the volume.
func (s *Service) Remove(ctx context.Context, name string, force bool) error {
	defer stays(s, name)
	if err := removeAtDriver(ctx, s, name, force); err != nil {
		return err
	}
	gone, err := s.takeOut(ctx, name)
	if errdefs.IsNotFound(err) && force {
		return nil
	}
	if err != nil {
		return err
	}
	if err := removeTree(gone); err != nil {
		return fmt.Errorf("remove volume %s: %w: what is left lies in %s", name, err, gone)
	}
	return nil
}

// RemoveOf removes the anonymous volumes that were made for a container which has never come about: its creation was cut off.
func (s *Service) RemoveOf(ctx context.Context, containerID string) error {
	s.mu.Lock()
	var names []string
	for name, e := range s.all {
		if e.For == containerID {
			names = append(names, name)
		}
	}
	s.mu.Unlock()
	var errs []error
	for _, name := range names {
		errs = append(errs, s.Remove(ctx, name, true))
	}
	return errors.Join(errs...)
}

// takeOut makes a volume that nobody uses unknown, and returns the folder that is to be removed.
func (s *Service) takeOut(ctx context.Context, name string) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	s.changing.Lock()
	defer s.changing.Unlock()
	s.mu.Lock()
	e := s.all[name]
	if e == nil {
		s.mu.Unlock()
		return "", fmt.Errorf("get %s: no such volume: %w", name, errdefs.ErrNotFound)
	}
	if _, err := seen(access.ScopeOf(ctx), e, nil); err != nil {
		s.mu.Unlock()
		return "", err
	}
	if err := e.inUse(); err != nil {
		s.mu.Unlock()
		return "", err
	}
	delete(s.all, name)
	s.mu.Unlock()
	gone := filepath.Join(s.root, gonePrefix+randomName(8))
	err := s.rename(e, gone)
	if err != nil {
		s.mu.Lock()
		s.all[name] = e
		s.mu.Unlock()
		return "", fmt.Errorf("remove volume %s: %w", name, err)
	}
	s.events.Publish(events.VolumeEventType, events.ActionDestroy, name, map[string]string{"driver": e.driver(), access.OwnerAttribute: e.Owner})
	return gone, nil
}

// inUse refuses what would take the volume from containers. The caller holds Service.mu.
func (e *entry) inUse() error {
	if len(e.refs) == 0 {
		return nil
	}
	ids := slices.Sorted(maps.Keys(e.refs))
	return fmt.Errorf("remove %s: volume is in use - [%s]: remove the containers first: %w", e.Name, strings.Join(ids, ", "), errdefs.ErrFailedPrecondition)
}

func (s *Service) rename(e *entry, gone string) error {
	e.mount.Lock()
	defer e.mount.Unlock()
	if err := unmount(s.data(e.Name)); err != nil && !os.IsNotExist(err) {
		return err
	}
	if err := os.Rename(s.dir(e.Name), gone); err != nil && !os.IsNotExist(err) { // somebody has deleted it behind the engine's back
		return err
	}
	return syncDir(s.root)
}

// Prune removes anonymous volumes that no container refers to; with the filter all=true named ones too. What is kept elsewhere, by another driver or
// behind options, stays, as with Docker.
func (s *Service) Prune(ctx context.Context, filters map[string]map[string]bool) (*volume.PruneReport, error) {
	list, err := s.matching(filters, pruneFilters)
	if err != nil {
		return nil, err
	}
	named, err := truth(filters, "all")
	if err != nil {
		return nil, err
	}
	report := &volume.PruneReport{VolumesDeleted: []string{}}
	var errs []error
	for _, e := range list {
		if _, anonymous := e.Labels[labelAnonymous]; !anonymous && !named || e.damaged != nil || e.Driver != "" || len(e.Options) > 0 || !access.ScopeOf(ctx).Sees(e.Owner) {
			continue
		}
		s.mu.Lock()
		used := len(e.refs) > 0
		s.mu.Unlock()
		if used {
			continue
		}
		size := usage(ctx, s.dir(e.Name))
		switch err := s.Remove(ctx, e.Name, false); {
		case errdefs.IsNotFound(err), errdefs.IsFailedPrecondition(err): // somebody was faster
			continue
		case err != nil: // which keeps nobody from the others
			errs = append(errs, err)
			continue
		}
		report.VolumesDeleted = append(report.VolumesDeleted, e.Name)
		report.SpaceReclaimed += uint64(max(size, 0))
	}
	s.events.Publish(events.VolumeEventType, events.ActionPrune, "", map[string]string{"reclaimed": fmt.Sprint(report.SpaceReclaimed)})
	return report, errors.Join(errs...)
}
