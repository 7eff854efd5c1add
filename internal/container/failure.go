package container

import (
	"errors"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/room"
)

// failure is an error whose text is for people, as it is, and whose class is one of errdefs'.
type failure struct {
	class error
	text  string
}

func (f *failure) Error() string { return f.text }
func (f *failure) Unwrap() error { return f.class }

func fail(class error, format string, args ...any) error {
	return &failure{class: class, text: fmt.Sprintf(format, args...)}
}

// invalid is fail for what the user has to change.
func invalid(format string, args ...any) error {
	return fail(errdefs.ErrInvalidArgument, format, args...)
}

// MoreFiles is what to do where the engine, or a shim, which has its limits, can open no more files.
const MoreFiles = "raise its limit (LimitNOFILE of its service, ulimit -n)"

// plain takes the name of an error's class off the end of its text, and says what helps against a full disk, and in a shim without descriptors.
func plain(err error) error {
	if err == nil {
		return nil
	}
	if room.Lacks(err) {
		return room.Explain(err)
	}
	if !errors.Is(err, unix.EMFILE) && strings.HasSuffix(err.Error(), unix.EMFILE.Error()) {
		return fmt.Errorf("%w: the engine may open too few files, and so may its shims: "+MoreFiles, err)
	}
	for _, class := range []error{errdefs.ErrInvalidArgument, errdefs.ErrNotFound, errdefs.ErrConflict, errdefs.ErrFailedPrecondition, errdefs.ErrUnavailable} {
		if text, ok := strings.CutSuffix(err.Error(), ": "+class.Error()); ok && errors.Is(err, class) { // EINVAL has the words of a class too
			return &failure{class: class, text: text}
		}
	}
	return err
}

func noSuchContainer(name string) error {
	return fail(errdefs.ErrNotFound, "No such container: %s", name)
}

// notJoinable is what is said where the container whose namespace another one is to have does not run. For pid namespaces these are dockerd's
// words and status.
func notJoinable(kind specs.LinuxNamespaceType, r *Record) error {
	if kind == specs.PIDNamespace {
		return fail(errdefs.ErrInternal, "failed to join PID namespace: container %s is not running: start it first", r.ID)
	}
	return fail(errdefs.ErrConflict, "cannot join %s of a non running container: %s: start it first", kind, r.Name)
}

func notRunning(rec *Record) error {
	return fail(errdefs.ErrConflict, "container %s is not running", rec.ID)
}
