package container

import (
	"context"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/mount"

	"wherry.dev/wherry/internal/cgroup"
	networks "wherry.dev/wherry/internal/network"
	"wherry.dev/wherry/internal/rootfs"
	"wherry.dev/wherry/internal/sandbox"
	"wherry.dev/wherry/internal/task"
)

var errClosed = fmt.Errorf("the engine is closing: %w", errdefs.ErrUnavailable)

// host is what does not change while the engine runs.
type host struct {
	bootID string
	cpus   int
	nodes  int  // of memory
	v2     bool // control groups of version 2 alone
	rlimit map[string]uint64
	mapped bool // the files of /etc can be mounted with their ids mapped: tmpfs cannot before kernel 6.3
}

func lookAround(etc string) host {
	h := host{cpus: runtime.NumCPU(), nodes: memoryNodes(), v2: cgroup.OnlyUnified(), rlimit: hardLimits(), mapped: idsMap(etc)}
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err == nil {
		h.bootID = strings.TrimSpace(string(b))
	}
	return h
}

// memoryNodes counts up to the last node that the kernel has, such as 2 for "0-1"; a kernel that knows of none has one.
func memoryNodes() int {
	b, err := os.ReadFile("/sys/devices/system/node/online")
	if err != nil {
		return 1
	}
	text := strings.TrimSpace(string(b))
	last, err := strconv.Atoi(text[strings.LastIndexAny(text, ",-")+1:])
	if err != nil {
		return 1
	}
	return last + 1
}

func idsMap(dir string) bool {
	userns, err := rootfs.IDMap{Base: 1 << 30, Size: 1}.UserNamespace()
	if err != nil {
		return false
	}
	defer userns.Close()
	f, err := rootfs.Bind(dir, rootfs.BindOptions{UserNS: userns})
	if err != nil {
		return false
	}
	return f.Close() == nil
}

// Open reads the records, finds running tasks again, and starts what its restart policy wants running.
func Open(ctx context.Context, o Options) (*Service, error) {
	if o.CgroupParent == "" {
		o.CgroupParent = "/wherry"
	}
	s := &Service{o: o, ranges: sandbox.NewRanges(o.Root), index: newIndex(), opened: make(chan struct{})}
	s.followers.Log = o.Log
	s.log(s.o.boundEtc())
	s.log(s.o.detachOldImages())
	s.host = lookAround(s.o.etcDir(""))
	s.execs = newExecs()
	s.blank.at, s.blank.lives, s.blank.idle = filepath.Join(s.o.containersDir(), blankName), &s.lives, make(chan struct{}, 1)
	for _, dir := range []string{s.o.containersDir(), filepath.Join(o.State, "tasks")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("make the folder of containers: %w", err)
		}
	}
	if err := s.o.makeBase(); err != nil {
		return nil, err
	}
	rootfs.Spread(s.o.containersDir())
	left, err := readRecords(s.o.containersDir())
	if err != nil {
		return nil, fmt.Errorf("read the containers: %w", err)
	}
	for _, err := range left.damaged {
		s.log(err)
	}
	for _, dir := range left.unfinished {
		if err := s.o.Volumes.RemoveOf(ctx, filepath.Base(dir)); err != nil { // the next life tries again
			s.log(err)
			continue
		}
		s.log(rootfs.RemoveTree(dir))
	}
	for _, r := range left.records {
		adopt(ctx, s, r)
	}
	networks.Await(s.o.Networks, func() map[string]string { return awaitedNetworks(s.index) })
	s.shims = task.OpenShimsIn(o.ShimGroup, o.Oar, s.ranges.Next)
	watchSenders(ctx, s)
	s.recoverAll(ctx)
	return s, nil
}

func (o *Options) containersDir() string { return filepath.Join(o.Root, "containers") }

func (o *Options) dirsOf(id string) (dir, taskDir string) {
	return filepath.Join(o.containersDir(), id), filepath.Join(o.State, "tasks", id)
}

// sharedMemory is the place of a /dev/shm that other containers may join.
func (o *Options) sharedMemory(id string) string { return filepath.Join(o.State, "shm", id) }

// cgroupPath is a container's control group: the one that it runs in, or the next start's.
func (o *Options) cgroupPath(r *Record) string {
	if r.Status.Alive() && r.Cgroup != "" {
		return r.Cgroup // its engine may have had another --cgroup-parent
	}
	parent := o.CgroupParent
	if p := r.HostConfig.CgroupParent; p != "" {
		parent = path.Clean("/" + p)
	}
	return path.Join(parent, r.ID)
}

// adopt takes a container of an earlier life into memory, with what it holds of others. Its layers are mounted when somebody needs them:
// all of all containers would keep everybody waiting.
func adopt(ctx context.Context, s *Service, r *Record) {
	dir, taskDir := s.o.dirsOf(r.ID)
	if err := s.index.reserve(r.Name, r.ID); err != nil {
		// Two records with one name: the engine was killed in the middle of a rename. The later comer gets a name of its own.
		renamed := *r
		renamed.Name = r.Name + "_" + r.short()
		s.log(fmt.Errorf("container %s is called %s now: %w", r.ID, renamed.Name, err))
		r = &renamed
		_ = s.index.reserve(r.Name, r.ID)
	}
	if r.OwnRange {
		s.ranges.Keep(r.IDMap)
	}
	if err := s.o.Images.Acquire(ctx, r.Image.ID, r.Image.Manifest.Digest, r.ID); err != nil {
		s.log(fmt.Errorf("image of container %s: %w", r.Name, err))
	}
	for _, m := range r.Mounts {
		if m.Image != nil {
			if err := s.o.Images.Acquire(ctx, m.Image.ID, m.Image.Manifest, mountUser(r, &m)); err != nil {
				s.log(fmt.Errorf("image %s, mounted in container %s: %w", m.Name, r.Name, err))
			}
		}
		if m.Name == "" || m.Type != mount.TypeVolume {
			continue
		}
		if err := s.o.Volumes.Keep(ctx, m.Name, r.ID, r.Status.Alive()); err != nil {
			s.log(fmt.Errorf("volume %s of container %s: %w", m.Name, r.Name, err))
		}
	}
	keepSecrets(s, r)
	c := newContainer(r, dir, taskDir)
	rememberHealth(c)
	s.index.add(c)
}

// patience is how long the engine's start waits for shims: one that is stopped, or a busy machine, keeps nobody from the others.
const patience = 500 * time.Millisecond

// recoverAll finds out, for all containers at once, what became of their processes, then does what policies want.
func (s *Service) recoverAll(ctx context.Context) {
	all := s.index.all()
	discarded, _ := filepath.Glob(filepath.Join(s.o.containersDir(), "*"+discardedSuffix)) // by earlier lives: nobody else deletes them
	known := make([]chan struct{}, len(all))
	for i, c := range all {
		done := make(chan struct{})
		known[i] = done
		s.lives.run(ctx, func(ctx context.Context) {
			defer close(done)
			life{s, c}.reattach(ctx)
		})
	}
	limited, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for _, done := range known {
		select {
		case <-done:
		case <-limited.Done():
		}
	}
	live := map[string]bool{}
	for _, c := range all {
		if c.record().Status.Alive() {
			live[c.id] = true
		}
	}
	if err := s.o.Networks.Retain(ctx, live); err != nil {
		s.log(fmt.Errorf("release the networks of containers that are gone: %w", err))
	}
	left, err := leftBehind(s.o) // before anything new begins: the steps of builds have no folder among the containers
	s.log(err)
	s.lives.run(ctx, func(ctx context.Context) {
		sweep(ctx, s, discarded, left)
		s.blank.plan(ctx)
		s.blank.hurry()
	})
	close(s.opened)
	news, party := s.index.parties(all)
	for i := len(all) - 1; i >= 0; i-- { // oldest first
		l := life{s, all[i]}
		if party[l.c.id] {
			continue
		}
		select {
		case <-known[i]:
			l.resume(ctx)
		default:
			s.lives.run(ctx, func(ctx context.Context) {
				select {
				case <-known[i]:
					l.resume(ctx)
				case <-ctx.Done():
				}
			})
		}
	}
	for _, c := range news {
		s.lives.run(ctx, func(ctx context.Context) {
			for i, other := range all { // both, and who else may have their names
				select {
				case <-known[i]:
				case <-time.After(patience):
					s.log(fmt.Errorf("container %s: its shim does not answer yet", other.record().Name))
				case <-ctx.Done():
					return
				}
			}
			takeUp(ctx, s, c)
		})
	}
}

// sweep ends what lies in the state directory of containers that are not there any more: an earlier life was killed before it had done so, or
// somebody has taken their folders away. What belongs to a container that was set aside stays as it is. It also deletes what an earlier life
// has discarded.
func sweep(ctx context.Context, s *Service, discarded, left []string) {
	removed := map[string]bool{}
	for _, dir := range discarded {
		removed[strings.TrimSuffix(filepath.Base(dir), discardedSuffix)] = true
	}
	for _, path := range left {
		dir, id := filepath.Split(path)
		switch t, err := task.Open(ctx, path); {
		case err == nil:
			if !removed[id] {
				s.log(fmt.Errorf("container %s is gone without having been removed: its process, and what it left in %s, is taken away", id, dir))
			}
			s.log(t.Delete(ctx))
		case !errdefs.IsNotFound(err): // the next life tries again
			s.log(err)
			continue
		}
		s.log(removeSharedMemory(s.o.sharedMemory(id)))
		s.log(os.RemoveAll(path))
	}
	for _, dir := range discarded { // at last: they say whose the rest was
		s.log(rootfs.RemoveTree(dir))
	}
}

// leftBehind are entries of the state directory whose containers have no folder.
func leftBehind(o Options) (paths []string, err error) {
	for _, dir := range []string{filepath.Join(o.State, "tasks"), o.etcDir(""), o.sharedMemory("")} {
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			paths = append(paths, filepath.Join(dir, e.Name()))
		}
	}
	folders, err := os.ReadDir(o.containersDir())
	if err != nil {
		return nil, fmt.Errorf("look for what containers have left: %w", err)
	}
	known := make(map[string]bool, len(folders))
	for _, f := range folders {
		id, rest, _ := strings.Cut(f.Name(), ".") // of one that was set aside, too
		known[id] = "."+rest != discardedSuffix
	}
	return slices.DeleteFunc(paths, func(path string) bool { return known[filepath.Base(path)] }), nil
}

// reattach finds a container's task, or what it left.
func (l life) reattach(ctx context.Context) {
	defer sendOutput(ctx, l)
	r := l.c.record()
	if !r.Status.Alive() {
		if t := cutOff(ctx, l); t != nil {
			l.goOn(ctx, t)
			relink(l.s, l.c.id)
		}
		return
	}
	t, err := findTask(ctx, l)
	switch {
	case err == nil && ctx.Err() == nil && overtakes(t, r):
		startedAgain(ctx, l, t)
	case err == nil && ctx.Err() == nil:
		l.goOn(ctx, t)
	case err == nil:
		l.s.log(t.Close())
	case ctx.Err() == nil:
		l.lost(ctx)
	}
}

// askAgain is after how long a shim is asked again that could not be.
const askAgain = time.Second

// findTask opens the task of a container that ran. errdefs.ErrNotFound where it is gone; otherwise it does not come back before it is known
// what became of it, or ctx ends: an engine that lacks descriptors or memory knows nothing of a shim, and must not take it for dead.
func findTask(ctx context.Context, l life) (*task.Task, error) {
	said := ""
	for {
		t, err := task.Open(ctx, l.c.taskDir)
		if err == nil || errdefs.IsNotFound(err) || ctx.Err() != nil {
			return t, err
		}
		if err.Error() != said {
			said = err.Error()
			l.s.log(fmt.Errorf("what became of container %s is not known yet: %w", l.c.record().Name, err))
		}
		select {
		case <-time.After(askAgain):
		case <-ctx.Done():
		}
	}
}

// cutOff looks for the task of a container that is not recorded as running, and records the start of one whose program was executed right
// before the engine was killed: nobody was told, but it runs, or has run, and how it ends counts. Any other task is taken away: the engine
// was killed before the program began, or between recording the exit and taking the task away. Nobody starts the container meanwhile.
func cutOff(ctx context.Context, l life) *task.Task {
	c, s := l.c, l.s
	c.op.Lock()
	defer c.op.Unlock()
	if _, err := os.Stat(c.taskDir); err != nil {
		return nil
	}
	limited, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	t, err := task.Open(limited, c.taskDir)
	switch {
	case ctx.Err() != nil:
		if err == nil {
			s.log(t.Close())
		}
	case errdefs.IsNotFound(err):
		s.log(os.RemoveAll(c.taskDir))
	case err != nil:
		s.log(fmt.Errorf("task of container %s: %w", c.record().Name, err)) // the next start, or the removal, sees to it
	case recordCutOff(limited, l, t):
		return t
	default:
		s.log(t.Delete(limited))
	}
	return nil
}

// overtakes says that a task is of the start after the one that the record tells of. An engine that counted no starts left only times.
func overtakes(t *task.Task, r *Record) bool {
	origin, err := task.Origin(t)
	return err == nil && origin.Life > 0 && origin.Life == r.Lives+1
}

// startedAgain goes on where the engine was killed while it started a container again whose end was written down nowhere: that of one with
// --rm is not, and a full disk takes none. A start that had not got as far as the program leaves the end.
func startedAgain(ctx context.Context, l life, t *task.Task) {
	c, s := l.c, l.s
	c.op.Lock()
	c.settle(func(r *Record) { r.Status, r.Pid, r.ExitCode, r.FinishedAt = Exited, 0, 137, time.Now().UTC() })
	limited, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	if recordCutOff(limited, l, t) {
		c.op.Unlock()
		l.goOn(ctx, t)
		relink(s, c.id)
		return
	}
	defer c.op.Unlock()
	s.log(t.Delete(limited))
	l.ended(ctx, nil, task.Exit{Code: 137, At: time.Now()})
}

// recordCutOff records a start that the engine's last life has made and not recorded; false: there is none. The caller holds op.
func recordCutOff(ctx context.Context, l life, t *task.Task) bool {
	n := &starting{life: l, r: l.c.record(), task: t}
	n.again, n.o.byPolicy = n.r.HasRun, n.r.Status == Restarting
	select {
	case <-l.s.opened: // too late: its network has been taken away
		return false
	default:
	}
	origin, err := task.Origin(t)
	if err != nil || !t.Started() || !overtakes(t, n.r) && (origin.Life > 0 || !origin.At.After(n.r.StartedAt)) {
		return false
	}
	n.began, n.input.CgroupPath = origin.At, origin.Cgroup
	if lower, err := l.s.o.Images.Mounted(n.r.Image.Lower); err == nil {
		found := *n.r
		found.Image.Lower = lower
		n.r = &found
	}
	if err = n.recordStart(); err != nil {
		l.s.log(fmt.Errorf("record the start of container %s, which was cut off: %w", n.r.Name, err))
	}
	return err == nil
}

// goOn watches a task that was found again, or records its end.
func (l life) goOn(ctx context.Context, t *task.Task) {
	l.c.mu.Lock()
	l.c.task = t
	l.c.mu.Unlock()
	l.s.senders.add(l.c.id, t.Pid(), l.c.record().Cgroup)
	l.s.log(findExecs(ctx, l, t))
	if exists(l.c.stoppedMark()) {
		l.c.settle(func(r *Record) { r.Stopped = true })
	}
	if l.endedMeanwhile(ctx, t) {
		return
	}
	l.s.log(settleNetworks(ctx, l))
	keepSockets(ctx, l)
	l.s.log(settlePause(ctx, l))
	l.s.lives.run(ctx, func(ctx context.Context) { l.watch(ctx, t) })
	l.startHealth(ctx)
	l.s.log(renewSocket(l.s, t, l.c.record())) // at last: what is mounted may be far away and not answer
}

// endedMeanwhile records at once the exit of a container that ended while no engine ran.
func (l life) endedMeanwhile(ctx context.Context, t *task.Task) bool {
	limited, cancel := context.WithTimeout(ctx, 30*time.Millisecond)
	defer cancel()
	exit, err := t.Wait(limited)
	if err != nil {
		return false
	}
	l.c.op.Lock()
	defer l.c.op.Unlock()
	l.ended(ctx, t, exit)
	return true
}

// lost records that a container's process is gone and nobody knows how: the host was restarted, or its shim was killed.
func (l life) lost(ctx context.Context) {
	r := l.c.record()
	exit := task.Exit{Code: 137, At: time.Now(), Lost: true}
	if r.BootID != l.s.host.bootID {
		exit.Code = 255
	}
	l.c.op.Lock()
	defer l.c.op.Unlock()
	l.ended(ctx, nil, exit)
	l.s.log(os.RemoveAll(l.c.taskDir))
}

// resume goes on with a removal, or starts what a policy wants running.
func (l life) resume(ctx context.Context) {
	r := l.c.record()
	p := r.HostConfig.RestartPolicy
	switch {
	case l.c.isGone():
	case r.Status == Removing || r.Status == Dead, r.HostConfig.AutoRemove && r.Status == Exited, l.spent(r):
		l.s.lives.run(ctx, func(ctx context.Context) {
			l.c.op.Lock()
			defer l.c.op.Unlock()
			l.s.log(l.removeNow(ctx, RemoveOptions{Volumes: r.HostConfig.AutoRemove || r.WithVolumes}))
		})
	case r.Status == Restarting:
		l.restartAfter(ctx, 0)
	case r.Status == Exited && (p.IsAlways() || p.IsUnlessStopped() && !r.Stopped || p.IsOnFailure() && r.BootID != l.s.host.bootID && r.wantsAgain(r.ExitCode)):
		if _, err := l.c.become(Restarting, false, nil); err == nil {
			l.restartAfter(ctx, 0)
		}
	}
}
