// Package criu writes the processes of a container to disk and lets them go on from there, by running the criu program
// (https://criu.org) with options of its command line. It keeps nothing; its calls are independent of each other.
//
// What the images say of a container is criu's to read. Who restores from them compares the result with a configuration of his own
// before anything runs: Restore leaves all processes stopped.
package criu

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
)

// Options are what a dump and a restore share. Images and Root are needed; the rest's zero values work.
type Options struct {
	Program string // "criu", found in PATH
	Images  string // folder of the images
	Work    string // folder of logs and statistics; empty: Images
	Root    string // the container's root file system on the host

	TCPEstablished bool // established connections too
	TCPSkip        bool // connections that are being made are left out
	UnixSockets    bool // connections to sockets outside too
	ShellJob       bool // processes of a shell's session and terminal
	FileLocks      bool
	LazyPages      bool // memory is fetched when it is touched
	AutoDedup      bool // memory of earlier images is dropped where later ones have it
	LinkRemap      bool // deleted files get a name
	Cgroups        string
	Empty          []string // kinds of namespaces that are left empty ("network")
	External       []string // what the container shares with the host, in criu's words

	Hook *Hook // nil: criu is not interrupted

	shown string // the work's folder, for people; empty: as it is
}

// DumpOptions say what Dump does with a running container.
type DumpOptions struct {
	Options
	Pid          int    // its first process
	Parent       string // folder of earlier images, from Images on
	Pre          bool   // only memory, and the container goes on
	LeaveRunning bool
	PageServer   string // ADDRESS:PORT that takes the memory
	Status       *os.File
}

// Dump writes the images; the processes are then gone, unless they are to be left running.
func Dump(ctx context.Context, o DumpOptions) error {
	verb, args := "dump", []string{"--tree", strconv.Itoa(o.Pid)}
	if o.Pre {
		verb = "pre-dump"
	}
	if o.Parent != "" {
		args = append(args, "--prev-images-dir", o.Parent)
	}
	args = append(args, flagsOf(o.Options)...)
	for _, row := range []struct {
		set  bool
		word string
	}{{o.Pre || o.Parent != "", "--track-mem"}, {o.LeaveRunning && !o.Pre, "--leave-running"}} {
		if row.set {
			args = append(args, row.word)
		}
	}
	if o.PageServer != "" {
		address, port, ok := cutLast(o.PageServer, ":")
		if !ok {
			return fmt.Errorf("page server %q: it is ADDRESS:PORT: %w", o.PageServer, errdefs.ErrInvalidArgument)
		}
		args = append(args, "--page-server", "--address", address, "--port", port)
	}
	if _, err := exec.LookPath("iptables-restore"); err != nil && !o.Pre {
		args = append(args, "--network-lock", "nftables") // criu's other way, without a program
	}
	cmd, err := command(ctx, o.Options, verb, args)
	if err != nil {
		return err
	}
	if o.Status != nil {
		cmd.ExtraFiles = []*os.File{o.Status}
		cmd.Args = append(cmd.Args, "--status-fd", "3")
	}
	return run(ctx, cmd, o.Options, verb)
}

func cutLast(s, sep string) (before, after string, ok bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// flagsOf are the options that a dump and a restore share.
func flagsOf(o Options) []string {
	var args []string
	for _, row := range []struct {
		set  bool
		word string
	}{{o.TCPEstablished, "--tcp-established"}, {o.TCPSkip, "--skip-in-flight"}, {o.UnixSockets, "--ext-unix-sk"}, {o.ShellJob, "--shell-job"}, {o.FileLocks, "--file-locks"},
		{o.LazyPages, "--lazy-pages"}, {o.AutoDedup, "--auto-dedup"}, {o.LinkRemap, "--link-remap"}} {
		if row.set {
			args = append(args, row.word)
		}
	}
	for _, e := range o.Empty {
		args = append(args, "--empty-ns", e)
	}
	for _, e := range o.External {
		args = append(args, "--external", e)
	}
	if o.Hook != nil {
		args = append(args, "--action-script", o.Hook.Program)
	}
	return args
}

// CgroupModes are what Options.Cgroups may be, of what criu knows.
func CgroupModes() []string { return []string{"soft", "full", "strict", "ignore"} }

func command(ctx context.Context, o Options, verb string, args []string) (*exec.Cmd, error) {
	work := o.work()
	for _, dir := range []string{o.Images, work} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
	}
	all := append([]string{verb, "--images-dir", o.Images, "--work-dir", work, "--log-file", verb + ".log", "-v4", "--root", o.Root, "--manage-cgroups=" + o.Cgroups}, args...)
	cmd, err := find(ctx, o.Program, all...)
	if err == nil {
		cmd.Dir = work
	}
	return cmd, err
}

func find(ctx context.Context, program string, args ...string) (*exec.Cmd, error) {
	if program == "" {
		program = "criu"
	}
	path, err := exec.LookPath(program)
	if err != nil {
		return nil, fmt.Errorf("criu is needed and is not there: install it, or say where it is with --criu: %w", err)
	}
	return exec.CommandContext(ctx, path, args...), nil
}

func (o Options) work() string {
	if o.Work == "" {
		return o.Images
	}
	return o.Work
}

// Version is criu's, as 31701 for 3.17.1.
func Version(ctx context.Context, program string) (int, error) {
	cmd, err := find(ctx, program, "--version")
	if err != nil {
		return 0, err
	}
	out, err := cmd.Output()
	if err != nil {
		return 0, fmt.Errorf("ask criu for its version: %w", err)
	}
	return parseVersion(string(out))
}

func parseVersion(text string) (int, error) {
	_, rest, _ := strings.Cut(text, "Version: ")
	rest, _, _ = strings.Cut(rest, "\n")
	number := 0
	for i, part := range append(strings.Split(strings.TrimSpace(rest), "."), "0", "0")[:3] {
		n, err := strconv.Atoi(part)
		if err != nil && i < 2 || n > 99 || n < 0 {
			return 0, fmt.Errorf("criu's version %q has an unknown form", rest)
		}
		number = number*100 + n
	}
	return number, nil
}

// run waits for criu, and says of its log what it is about.
func run(ctx context.Context, cmd *exec.Cmd, o Options, verb string) error {
	log := filepath.Join(o.work(), verb+".log")
	if err := os.Remove(log); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	hooked, err := o.Hook.serve(ctx, cmd)
	if err != nil {
		return err
	}
	said, err := cmd.CombinedOutput()
	if failed := hooked(); failed != nil {
		return failed
	}
	if err == nil {
		return nil
	}
	var reasons []string
	if f, e := os.Open(log); e == nil {
		defer f.Close()
		reasons = errorsOf(f)
	}
	if len(reasons) == 0 {
		reasons = errorsOf(bytes.NewReader(said))
	}
	if o.shown != "" {
		log = filepath.Join(o.shown, verb+".log")
	}
	if len(reasons) == 0 {
		return fmt.Errorf("criu %s: %w: %s (its log is %s)", verb, err, bytes.TrimSpace(said), log)
	}
	return fmt.Errorf("criu %s: %w: %s (its log is %s)", verb, err, strings.Join(reasons, "; "), log)
}

// errorsOf are the last words of criu's log about what went wrong, without where in its source that was.
func errorsOf(log io.Reader) (reasons []string) {
	const most = 3
	lines := bufio.NewScanner(io.LimitReader(log, 64<<20))
	for lines.Scan() {
		_, rest, ok := strings.Cut(lines.Text(), "Error (")
		if !ok {
			continue
		}
		if _, text, ok := strings.Cut(rest, "): "); ok {
			if len(reasons) == most {
				reasons = reasons[1:]
			}
			reasons = append(reasons, strings.TrimSpace(text))
		}
	}
	return reasons
}
