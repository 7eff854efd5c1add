package volume

import (
	"context"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/volume"
)

// List takes Docker's filters (name, driver, label, dangling) and is sorted by name.
func (s *Service) List(ctx context.Context, filters map[string]map[string]bool) ([]volume.Volume, error) {
	if err := checkFilters(filters, "name", "driver", "label", "dangling"); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []volume.Volume
	for _, e := range s.volumes {
		if matches(e, filters) {
			out = append(out, *s.show(e))
		}
	}
	slices.SortFunc(out, func(a, b volume.Volume) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

func checkFilters(filters map[string]map[string]bool, known ...string) error {
	for key := range filters {
		if !slices.Contains(known, key) {
			return fmt.Errorf("invalid filter '%s': there are %s: %w", key, strings.Join(known, ", "), errdefs.ErrInvalidArgument)
		}
	}
	for v := range filters["dangling"] {
		if !slices.Contains([]string{"true", "false", "1", "0"}, v) {
			return fmt.Errorf("invalid filter 'dangling=[%s]': say true or false: %w", v, errdefs.ErrInvalidArgument)
		}
	}
	return nil
}

// matches says whether a volume has all of the wanted labels and one of the wanted values of each other filter.
func matches(e *entry, filters map[string]map[string]bool) bool {
	if want := filters["name"]; len(want) > 0 && !anyOf(want, func(v string) bool { return strings.Contains(e.Name, v) }) {
		return false
	}
	if want := filters["driver"]; len(want) > 0 && !want[e.Driver] {
		return false
	}
	if want := filters["dangling"]; len(want) > 0 {
		dangling := want["true"] || want["1"]
		if dangling != (len(e.users) == 0) {
			return false
		}
	}
	for label := range filters["label"] {
		if !hasLabel(e.Labels, label) {
			return false
		}
	}
	for label := range filters["label!"] {
		if hasLabel(e.Labels, label) {
			return false
		}
	}
	return true
}

func anyOf(set map[string]bool, fn func(string) bool) bool {
	for v := range set {
		if fn(v) {
			return true
		}
	}
	return false
}

func hasLabel(labels map[string]string, want string) bool {
	key, value, exact := strings.Cut(want, "=")
	got, ok := labels[key]
	return ok && (!exact || got == value)
}

// Prune removes volumes that no container refers to: anonymous ones, and with the filter all=true named ones too.
func (s *Service) Prune(ctx context.Context, filters map[string]map[string]bool) (*volume.PruneReport, error) {
	if err := checkFilters(filters, "all", "label", "label!"); err != nil {
		return nil, err
	}
	all := filters["all"]["true"] || filters["all"]["1"]
	s.mu.Lock()
	var names []string
	for name, e := range s.volumes {
		_, anonymous := e.Labels[anonymousLabel]
		if len(e.users) == 0 && (all || anonymous) && matches(e, filters) {
			names = append(names, name)
		}
	}
	s.mu.Unlock()
	slices.Sort(names)
	report := &volume.PruneReport{VolumesDeleted: []string{}}
	for _, name := range names {
		var size int64
		if e, err := s.lock(name); err == nil {
			if !e.mounted {
				size = directorySize(dataDir(s.root, name))
			}
			e.op.Unlock()
		}
		if err := s.Remove(ctx, name, false); err != nil {
			if errdefs.IsNotFound(err) || errdefs.IsFailedPrecondition(err) { // somebody was faster
				continue
			}
			return report, err
		}
		report.VolumesDeleted = append(report.VolumesDeleted, name)
		report.SpaceReclaimed += uint64(size)
	}
	s.events.Publish(events.VolumeEventType, events.ActionPrune, "", map[string]string{"reclaimed": fmt.Sprint(report.SpaceReclaimed)})
	return report, nil
}

// Usage is List with each volume's size in bytes and its number of users.
func (s *Service) Usage(ctx context.Context) ([]volume.Volume, error) {
	list, err := s.List(ctx, nil)
	for i := range list {
		v := &list[i]
		v.UsageData = &volume.UsageData{RefCount: int64(len(s.Users(v.Name))), Size: directorySize(v.Mountpoint)}
	}
	return list, err
}

// directorySize is what the files below dir take on the disk, in bytes; files that vanish meanwhile do not count.
func directorySize(dir string) (size int64) {
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil
		}
		if info, err := d.Info(); err == nil {
			if st, ok := info.Sys().(*syscall.Stat_t); ok && !d.IsDir() {
				size += st.Blocks * 512
			}
		}
		return nil
	})
	return size
}
