package build

import (
	"context"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/moby/buildkit/cache"
	"github.com/moby/buildkit/cache/contenthash"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/snapshot"
	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/worker"
	digest "github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// contentHashKey is where BuildKit keeps what it knows of a snapshot's files.
const contentHashKey = "buildkit.contenthash.v0"

// copyOp is a step on files. Before a COPY --from, BuildKit hashes what is copied, and walks the whole directory that this lies in: for /out
// the whole file system. Here it sees of it only what is copied.
type copyOp struct {
	solver.Op
	sources map[int][]string // what is copied, by input; none where that is not known by path
}

// copiedFrom reads what a step copies from each of its inputs.
func copiedFrom(op *pb.FileOp) map[int][]string {
	out, whole := map[int][]string{}, map[int]bool{}
	for _, a := range op.Actions {
		for _, named := range usersIn(a) {
			whole[named] = true
		}
		c := a.GetCopy()
		if c == nil {
			continue
		}
		from := path.Join("/", c.Src)
		if i := strings.IndexAny(from, `*?[\`); i >= 0 && c.AllowWildcard {
			from = path.Dir(from[:i] + "x")
		}
		input := int(a.SecondaryInput)
		out[input] = append(out[input], from)
		whole[input] = whole[input] || from == "/"
	}
	for input := range whole {
		if whole[input] {
			delete(out, input)
		}
	}
	for _, list := range out {
		slices.Sort(list)
	}
	return out
}

// usersIn are the inputs in whose /etc/passwd and /etc/group owners are looked up.
func usersIn(a *pb.FileAction) []int {
	var out []int
	for _, owner := range []*pb.ChownOpt{a.GetCopy().GetOwner(), a.GetMkdir().GetOwner(), a.GetMkfile().GetOwner(), a.GetSymlink().GetOwner()} {
		for _, u := range []*pb.UserOpt{owner.GetUser(), owner.GetGroup()} {
			if named := u.GetByName(); named != nil {
				out = append(out, int(named.Input))
			}
		}
	}
	return out
}

// CacheMap is what the step depends on.
func (o *copyOp) CacheMap(ctx context.Context, job solver.JobContext, index int) (*solver.CacheMap, bool, error) {
	m, done, err := o.Op.CacheMap(ctx, job, index)
	if err != nil || m == nil {
		return m, done, err
	}
	for i := range m.Deps {
		hash, paths := m.Deps[i].ComputeDigestFunc, o.sources[i]
		if hash == nil || len(paths) == 0 {
			continue
		}
		m.Deps[i].ComputeDigestFunc = func(ctx context.Context, res solver.Result, g session.Group) (digest.Digest, error) {
			ref, ok := res.Sys().(*worker.WorkerRef)
			if !ok || ref.ImmutableRef == nil || hashed(ref.ImmutableRef) {
				return hash(ctx, res, g)
			}
			n := &narrowRef{ImmutableRef: ref.ImmutableRef, paths: paths}
			defer contenthash.ClearCacheContext(n)
			return hash(ctx, worker.NewWorkerRefResult(n, ref.Worker), g)
		}
	}
	return m, done, nil
}

// hashed says whether BuildKit knows the snapshot's files already, as those that a client has sent.
func hashed(ref cache.ImmutableRef) bool {
	of, ok := ref.GetEqualMutable()
	if !ok {
		of = ref
	}
	known, err := of.GetExternal(contentHashKey)
	return err == nil && len(known) > 0
}

// narrowRef is a snapshot of which only some paths are to be seen. What BuildKit learns of it is forgotten.
type narrowRef struct {
	cache.ImmutableRef
	paths []string
}

// ID is unlike that of the whole.
func (n *narrowRef) ID() string {
	return n.ImmutableRef.ID() + ":" + digest.FromString(strings.Join(n.paths, "\x00")).Encoded()[:12]
}

// GetEqualMutable is not what stands for the whole.
func (n *narrowRef) GetEqualMutable() (cache.RefMetadata, bool) { return nil, false }

// GetExternal knows nothing.
func (n *narrowRef) GetExternal(key string) ([]byte, error) {
	return nil, fmt.Errorf("%s of a part of a snapshot: %w", key, os.ErrNotExist)
}

// SetExternal keeps nothing.
func (n *narrowRef) SetExternal(string, []byte) error { return nil }

// Mount shows the paths alone.
func (n *narrowRef) Mount(ctx context.Context, readonly bool, g session.Group) (snapshot.Mountable, error) {
	whole, err := n.ImmutableRef.Mount(ctx, readonly, g)
	if err != nil {
		return nil, err
	}
	return &narrowMount{Mountable: whole, paths: n.paths}, nil
}

// narrowMount is a directory with the paths mounted where they belong.
type narrowMount struct {
	snapshot.Mountable
	paths []string

	undo closers
}

// Mount is the whole where a path leads over a link or is not there: then BuildKit finds its way, or the words.
func (n *narrowMount) Mount() (_ []mount.Mount, _ func() error, err error) {
	local := snapshot.LocalMounter(n.Mountable)
	root, err := local.Mount()
	if err != nil {
		return nil, nil, err
	}
	n.undo = append(n.undo, local.Unmount)
	defer func() {
		if err != nil {
			_ = n.undo.close()
		}
	}()
	whole := []mount.Mount{{Type: "bind", Source: root, Options: []string{"rbind"}}}
	trees, ok := treesOf(root, n.paths)
	defer func() {
		for _, t := range trees {
			_ = t.Close()
		}
	}()
	if !ok {
		return whole, n.undo.close, nil
	}
	dir, err := os.MkdirTemp("", "buildkit-mount")
	if err != nil {
		return nil, nil, err
	}
	n.undo = append(n.undo, func() error { return os.Remove(dir) })
	// A mount of its own, so that whoever takes that away has taken all of it.
	if err := unix.Mount("parts", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "size=1m,mode=700"); err != nil {
		return nil, nil, fmt.Errorf("show a part of a snapshot: %w", err)
	}
	n.undo = append(n.undo, func() error { return unix.Unmount(dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW) })
	for i, t := range trees {
		if err := attach(t, filepath.Join(dir, n.paths[i])); err != nil {
			return nil, nil, fmt.Errorf("show %s of a snapshot: %w", n.paths[i], err)
		}
	}
	return []mount.Mount{{Type: "bind", Source: dir, Options: []string{"rbind"}}}, n.undo.close, nil
}

// treesOf takes the paths out of a mounted file system; not ok is where one of them is no plain path, or lies in another.
func treesOf(root string, paths []string) (out []*os.File, ok bool) {
	dir, err := os.OpenFile(root, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, false
	}
	defer dir.Close()
	for i, p := range paths {
		if i > 0 && (p == paths[i-1] || strings.HasPrefix(p, paths[i-1]+"/")) {
			return out, false
		}
		fd, err := unix.Openat2(int(dir.Fd()), path.Join(".", p), &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS})
		if err != nil {
			return out, false
		}
		tree, err := unix.OpenTree(fd, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
		_ = unix.Close(fd)
		if err != nil {
			return out, false
		}
		out = append(out, os.NewFile(uintptr(tree), p))
	}
	return out, true
}

// attach mounts a tree at a path that it makes.
func attach(tree *os.File, at string) error {
	fi, err := tree.Stat()
	if err != nil {
		return err
	}
	dir := at
	if !fi.IsDir() {
		dir = filepath.Dir(at)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if !fi.IsDir() {
		if err := os.WriteFile(at, nil, 0o600); err != nil {
			return err
		}
	}
	return unix.MoveMount(int(tree.Fd()), "", unix.AT_FDCWD, at, unix.MOVE_MOUNT_F_EMPTY_PATH)
}
