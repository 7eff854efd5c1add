package build

import (
	"path"
	"slices"
	"strings"
	"time"

	"github.com/moby/buildkit/frontend"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/solver/llbsolver/ops"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/worker"
)

// ResolveOp gives BuildKit what carries out a vertex of a build.
func (w *builderWorker) ResolveOp(v solver.Vertex, s frontend.FrontendLLBBridge, sm *session.Manager, o worker.ProxyOpt) (solver.Op, error) {
	whole, ok := v.Sys().(*pb.Op)
	if !ok || whole.GetFile() == nil {
		return w.Worker.ResolveOp(v, s, sm, o)
	}
	file := whole.GetFile()
	if w.b.o.dates() != "" {
		file = dated(v, file)
	}
	op, err := ops.NewFileOp(v, &pb.Op_File{File: file}, w.CacheMgr, w.ParallelismSem, w)
	if err != nil {
		return nil, err
	}
	return &copyOp{Op: op, sources: copiedFrom(file)}, nil
}

// dated says when the files of an operation are from, where it does not say so itself.
func dated(v solver.Vertex, f *pb.FileOp) *pb.FileOp {
	f = f.CloneVT()
	for _, a := range f.Actions {
		switch a := a.Action.(type) {
		case *pb.FileAction_Mkdir:
			date(&a.Mkdir.Timestamp)
		case *pb.FileAction_Mkfile:
			date(&a.Mkfile.Timestamp)
		case *pb.FileAction_Symlink:
			date(&a.Symlink.Timestamp)
		}
		// Files of an archive are as old as it says; those of images and stages as old as they are there.
		if c := a.GetCopy(); c != nil && isOutside(v, a.SecondaryInput) && !(c.AttemptUnpackDockerCompatibility && isArchive(c.Src)) {
			date(&c.Timestamp)
		}
	}
	return f
}

// date fills in a time in nanoseconds; -1 is none.
func date(t *int64) {
	if *t == -1 {
		*t = fixedDate * int64(time.Second)
	}
}

// isOutside says that an input comes from the client, or over the network, where files have the time of a download or a checkout.
func isOutside(v solver.Vertex, input int64) bool {
	if input < 0 || int(input) >= len(v.Inputs()) {
		return false
	}
	from := v.Inputs()[input].Vertex
	op, ok := from.Sys().(*pb.Op)
	if !ok {
		return false
	}
	if s := op.GetSource(); s != nil {
		scheme, _, _ := strings.Cut(s.Identifier, "://")
		return slices.Contains([]string{"local", "git", "http", "https"}, scheme)
	}
	f := op.GetFile() // a context that is made of one file, or unpacked
	return f != nil && len(f.Actions) == 1 && f.Actions[0].Input < 0 && f.Actions[0].GetCopy() != nil && isOutside(from, f.Actions[0].SecondaryInput)
}

// isArchive goes by a name.
func isArchive(name string) bool {
	base := path.Base(name)
	return strings.Contains(base, ".tar") || slices.Contains([]string{".tgz", ".tbz", ".tbz2", ".txz", ".tzst"}, path.Ext(base))
}
