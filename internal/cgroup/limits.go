package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// setting is one value for one file; the first of the files that the kernel has takes it.
type setting struct {
	controller string
	files      []string
	value      string
	what       string // for people
	optional   bool   // a kernel without the file is fine
	again      bool   // a value that is refused may fit when the later ones are written
}

// Update writes limits; what res leaves out stays as it is. A refused value is errdefs.ErrInvalidArgument and names the file.
func (g *Group) Update(res *specs.LinuxResources) error {
	if res == nil {
		return nil
	}
	settings, err := settingsOf(g, res)
	if err != nil {
		return err
	}
	files, err := unifiedSettings(res.Unified, g.pure())
	if err != nil {
		return err
	}
	if err := g.writeAll(settings); err != nil {
		return err
	}
	if err := g.limitMemory(res.Memory); err != nil {
		return err
	}
	if err := g.writeAll(files); err != nil { // the last word, as in runc
		return err
	}
	return g.limitDevices(res.Devices)
}

// settingsOf are those of everything but memory and devices, in the order in which they are written.
func settingsOf(g *Group, res *specs.LinuxResources) ([]setting, error) {
	if g.pure() {
		return v2Settings(g, res)
	}
	return v1Settings(res)
}

func (g *Group) write(s setting) error {
	dir, ok := g.dirs[s.controller]
	if g.pure() {
		dir, ok = g.dirs[unified], true
	}
	if !ok {
		return fmt.Errorf("%s cannot be limited: this host has no %s controller: %w", s.what, s.controller, errdefs.ErrFailedPrecondition)
	}
	for _, file := range s.files {
		err := writeFile(filepath.Join(dir, file), s.value)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		return explain(s, filepath.Join(dir, file), err)
	}
	if s.optional {
		return nil
	}
	return fmt.Errorf("%s cannot be limited: this kernel has no %s in %s: %w", s.what, strings.Join(s.files, " or "), dir, errdefs.ErrFailedPrecondition)
}

func (g *Group) writeAll(list []setting) error {
	var later []setting
	for _, s := range list {
		err := g.write(s)
		if s.again && errors.Is(err, unix.EINVAL) {
			s.again = false
			later = append(later, s)
			continue
		}
		if err != nil {
			return err
		}
	}
	if len(later) == 0 {
		return nil
	}
	return g.writeAll(later)
}

// writeFile writes to a control file: one that is there, in one write.
func writeFile(path, value string) error {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	if _, err := unix.Write(fd, []byte(value)); err != nil {
		return &fs.PathError{Op: "write", Path: path, Err: err}
	}
	return nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// explain says what a refusal means.
func explain(s setting, file string, err error) error {
	if err == nil {
		return nil
	}
	why := "the kernel refuses it"
	switch {
	case errors.Is(err, unix.EBUSY):
		why = "more than that is in use now"
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ERANGE):
		why = "the value is out of range or not understood"
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EACCES):
		why = "the parent group does not have it"
	case errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		why = "there is no such device"
	}
	return fmt.Errorf("limit %s to %s: %s (%s: %w): %w", s.what, s.value, why, file, err, errdefs.ErrInvalidArgument)
}

func number[T int64 | uint64 | uint32 | uint16](v T) string {
	if v > 0 {
		return strconv.FormatUint(uint64(v), 10)
	}
	return strconv.FormatInt(int64(v), 10)
}

// pidsMax: to the kernel none and one are the same, as the first process is there; systemd knows no limit of none.
func pidsMax(p *specs.LinuxPids) string {
	if p.Limit == nil || *p.Limit < 0 {
		return "max"
	}
	return number(max(*p.Limit, 1))
}

// noConversion refuses a limit that this version of control groups has nothing for.
func noConversion(what, why string) error {
	return fmt.Errorf("%s cannot be had on this host: %s: %w", what, why, errdefs.ErrFailedPrecondition)
}

// unifiedSettings are files by name, as the configuration has them for cgroup v2. Of a host with v1 controllers only those of the group
// itself are in the cgroup2 tree. A file that takes one line at a time gets them so.
func unifiedSettings(files map[string]string, pure bool) ([]setting, error) {
	var out []setting
	for _, name := range slices.Sorted(maps.Keys(files)) {
		controller, _, ok := strings.Cut(name, ".")
		if !ok || strings.Contains(name, "/") || controller == "" {
			return nil, fmt.Errorf("resources.unified: %q is not the name of a file of cgroup v2: %w", name, errdefs.ErrInvalidArgument)
		}
		if !pure && controller != "cgroup" {
			return nil, fmt.Errorf("invalid configuration: %s (resources.unified) needs a host with cgroup v2 only; this one has v1 controllers: %w", name, errdefs.ErrFailedPrecondition)
		}
		for line := range strings.Lines(files[name]) {
			out = append(out, setting{controller: unified, files: []string{name}, value: strings.TrimSuffix(line, "\n"), what: name})
		}
	}
	return out, nil
}

// rdmaSettings are the same in both versions.
func rdmaSettings(devices map[string]specs.LinuxRdma) ([]setting, error) {
	var out []setting
	for _, name := range slices.Sorted(maps.Keys(devices)) {
		value := name
		if n := devices[name].HcaHandles; n != nil {
			value += " hca_handle=" + number(*n)
		}
		if n := devices[name].HcaObjects; n != nil {
			value += " hca_object=" + number(*n)
		}
		if value == name {
			return nil, fmt.Errorf("resources.rdma: %s: neither hcaHandles nor hcaObjects: %w", name, errdefs.ErrInvalidArgument)
		}
		out = append(out, setting{controller: "rdma", files: []string{"rdma.max"}, value: value, what: "remote memory access by " + name})
	}
	return out, nil
}

// hugepageSettings limit what is reserved, where the kernel counts that, and what is used.
func hugepageSettings(list []specs.LinuxHugepageLimit, suffix string) []setting {
	var out []setting
	for _, h := range list {
		for _, kind := range []string{".rsvd", ""} {
			out = append(out, setting{controller: "hugetlb", files: []string{"hugetlb." + h.Pagesize + kind + suffix}, value: number(h.Limit),
				what: "huge pages of " + h.Pagesize, optional: kind != ""})
		}
	}
	return out
}

// limitDevices writes v1's device rules in order; on v2 they are a BPF program that is attached where one is asked for.
func (g *Group) limitDevices(rules []specs.LinuxDeviceCgroup) error {
	if len(rules) == 0 {
		return nil
	}
	dir, ok := g.dirs["devices"]
	if !ok {
		if g.pure() {
			return attachDeviceProgram(g, rules)
		}
		return nil
	}
	for _, r := range rules {
		file := "devices.deny"
		if r.Allow {
			file = "devices.allow"
		}
		if err := writeFile(filepath.Join(dir, file), deviceRule(r)); err != nil {
			return explain(setting{what: "devices", value: deviceRule(r)}, filepath.Join(dir, file), err)
		}
	}
	return nil
}

// knownAccess leaves out letters that mean nothing.
func knownAccess(access string) string {
	return strings.Map(func(c rune) rune {
		if strings.ContainsRune("rwm", c) {
			return c
		}
		return -1
	}, access)
}

func deviceRule(r specs.LinuxDeviceCgroup) string {
	part := func(n *int64) string {
		if n == nil || *n < 0 {
			return "*"
		}
		return number(*n)
	}
	kind, access := r.Type, knownAccess(r.Access)
	if kind == "" {
		kind = "a"
	}
	if access == "" {
		access = "rwm"
	}
	return fmt.Sprintf("%s %s:%s %s", kind, part(r.Major), part(r.Minor), access)
}
