package ociruntime

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode"

	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/rootfs"
	"wherry.dev/wherry/internal/sysprog"
	"wherry.dev/wherry/internal/why"
)

// ExecError says why the user's program did not start. Its text names the program, the cause (also: missing interpreter, CRLF line
// ends, wrong architecture) and the remedy.
type ExecError struct {
	Path string
	Code int // 127: not found; 126: found but cannot be run
	Err  error
	Why  string
	cwd  bool // it is the working directory that could not be entered
	kind why.Cause
}

func (e *ExecError) Error() string {
	text := fmt.Sprintf("exec: %q: %v", e.Path, e.Err)
	if e.cwd {
		text = fmt.Sprintf("chdir to cwd (%q): %v", e.Path, e.Err)
	} else if strings.Contains(e.Path, "/") {
		text = fmt.Sprintf("exec %s: %v", e.Path, e.Err)
	}
	if e.Why == "" {
		return text
	}
	return text + ": " + e.Why
}

// ExitCode is what a shell would answer: 126 or 127.
func (e *ExecError) ExitCode() int { return e.Code }

// Cause is the kind of what is wrong, for programs.
func (e *ExecError) Cause() why.Cause {
	if e.kind == "" {
		return why.NotStarted
	}
	return e.kind
}

func (e *ExecError) Unwrap() error { return e.Err }

// diagnose turns a failed step into what a person can mend; steps before the execve stay as they are, but for the working directory.
func diagnose(err error, p *sysprog.Program, tried execPaths, files view) error {
	var failed *sysprog.Error
	if !errors.As(err, &failed) {
		return err
	}
	if failed.Name == "mount proc" && failed.Errno == unix.EPERM {
		return fmt.Errorf("%w: a procfs may be mounted only by who sees one that nothing is mounted over, and here parts of /proc are masked: this runs in a "+
			"container that would have to be made without masks (docker --security-opt systempaths=unconfined, podman --security-opt unmask=ALL)", err)
	}
	if dir, ok := strings.CutPrefix(failed.Name, enterDirectory); ok {
		return &ExecError{Path: dir, Code: 126, cwd: true, kind: why.NoDirectory, Err: failed.Errno, Why: "the working directory cannot be entered; set another one with -w"}
	}
	name, ok := strings.CutPrefix(failed.Name, "execute ")
	if !ok {
		return hint(failed)
	}
	e := &ExecError{Path: name, Code: 126, Err: failed.Errno}
	if failed.Errno == unix.ENOENT {
		e.Code = 127
		for i, w := range tried.why {
			errno := unix.Errno(p.Value(w))
			if errno == unix.EACCES {
				e.Code, e.Err = 126, errno
				name = tried.paths[i]
			}
		}
	}
	explain(e, name, tried, files)
	return e
}

// explain reads the program's first bytes, as the container sees them, to say what is wrong with it.
func explain(e *ExecError, name string, tried execPaths, files view) {
	switch {
	case errors.Is(e.Err, unix.EACCES):
		e.kind = why.NotExecutable
		e.Why = accessProblem(files, append([]string{name}, tried.paths...))
		return
	case errors.Is(e.Err, unix.ENOEXEC):
		e.kind = why.NotAProgram
		e.Why = "it is neither a program for this machine nor a script that begins with #!"
	}
	if files.root == nil {
		return
	}
	for _, try := range append([]string{name}, tried.paths...) {
		head, err := readHead(files, try)
		if err != nil {
			continue
		}
		if text, kind := interpreterProblem(files, head); text != "" {
			e.Why, e.kind = text, kind
		}
		return
	}
	if e.Code == 127 {
		e.kind = why.NotFound
		if e.Path == "" {
			e.Err = errNotInPath
			e.Why = "the command is an empty word: perhaps a variable that is not set"
		} else if strings.Contains(e.Path, "/") {
			e.Why = "there is no such file in the container: check the path, and whether a mount hides it"
		} else {
			e.Err = errNotInPath
			e.Why = "no folder of PATH has it: check the spelling, or give its full path"
		}
	}
}

// accessProblem says why the kernel does not let the first of some names that is there be executed.
func accessProblem(files view, names []string) string {
	if files.root != nil {
		for _, name := range names {
			f, err := files.open(name, unix.O_PATH)
			if err != nil {
				continue
			}
			fi, err := f.Stat()
			f.Close()
			switch {
			case err != nil:
			case fi.IsDir():
				return "it is a folder: give a program as the command"
			case fi.Mode()&0o111 == 0:
				return fmt.Sprintf("it is there but not executable, its mode is %04o: chmod +x makes it so, in the image COPY --chmod=755", fi.Mode().Perm())
			}
		}
	}
	return "it is there but may not be executed: check its mode and owner, and that of its folders, and whether it is mounted noexec"
}

var errNotInPath = errors.New("executable file not found in $PATH")

// readHead reads the beginning of a regular file of the container.
func readHead(files view, name string) ([]byte, error) {
	at, err := files.open(name, unix.O_PATH)
	if err != nil {
		return nil, err
	}
	defer at.Close()
	f, err := rootfs.Reopen(at)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() {
		return nil, errors.New("not a regular file")
	}
	return io.ReadAll(io.LimitReader(f, 64<<10))
}

// shown is a path that a file of the image names, fit for a line on somebody's terminal.
func shown(name string) string {
	if len(name) > 256 { // more the kernel does not read of a script's first line
		name = name[:256] + "…"
	}
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return '?'
		}
		return r
	}, name)
}

func interpreterProblem(files view, head []byte) (string, why.Cause) {
	if line, ok := bytes.CutPrefix(head, []byte("#!")); ok {
		line, _, _ = bytes.Cut(line, []byte("\n"))
		crlf := bytes.HasSuffix(line, []byte("\r"))
		interpreter, _, _ := strings.Cut(strings.TrimSpace(strings.TrimSuffix(string(line), "\r")), " ")
		if crlf {
			return fmt.Sprintf("the script's lines end in CRLF (Windows), so its interpreter is read as %q: convert it with dos2unix", shown(interpreter)+"\r"), why.ScriptCRLF
		}
		if f, err := files.open(interpreter, unix.O_PATH); err != nil {
			return fmt.Sprintf("its interpreter %s is not in the image", shown(interpreter)), why.MissingInterpreter
		} else {
			f.Close()
		}
		return "", ""
	}
	switch {
	case len(head) == 0:
		return "it is an empty file", why.NotAProgram
	case bytes.HasPrefix(head, []byte("\xef\xbb\xbf#!")):
		return "a byte order mark stands before its #!, as editors of Windows write one: save it as UTF-8 without one", why.NotAProgram
	}
	return elfProblem(files, head)
}
