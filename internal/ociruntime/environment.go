package ociruntime

import (
	"bufio"
	"io"
	"os"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/rootfs"
)

// withEnvironment is a process whose variables are each there once, the last of a name, and whose HOME is set: where the configuration
// says none, to what the container's /etc/passwd has for the user.
func withEnvironment(p *specs.Process, passwd func() (*os.File, error)) *specs.Process {
	own := *p
	own.Env = distinct(p.Env)
	for i, kv := range own.Env {
		if home, ok := strings.CutPrefix(kv, "HOME="); ok {
			if home == "" {
				own.Env[i] = "HOME=" + homeOf(p.User.UID, passwd)
			}
			return &own
		}
	}
	own.Env = append(own.Env, "HOME="+homeOf(p.User.UID, passwd))
	return &own
}

// distinct drops the variables that a later one replaces.
func distinct(env []string) []string {
	last := make(map[string]int, len(env))
	for i, kv := range env {
		name, _, _ := strings.Cut(kv, "=")
		last[name] = i
	}
	out := make([]string, 0, len(env)+1)
	for i, kv := range env {
		if name, _, _ := strings.Cut(kv, "="); last[name] == i {
			out = append(out, kv)
		}
	}
	return out
}

// maxPasswd bounds how much of a container's /etc/passwd is read.
const maxPasswd = 1 << 20

// homeOf reads a user's home folder from the container's /etc/passwd, which passwd finds and does not open for reading: it may be a pipe or a
// device. It is / where nothing says otherwise.
func homeOf(uid uint32, passwd func() (*os.File, error)) string {
	at, err := passwd()
	if err != nil {
		return "/"
	}
	defer at.Close()
	f, err := rootfs.Reopen(at)
	if err != nil {
		return "/"
	}
	defer f.Close()
	if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() {
		return "/"
	}
	return homeIn(io.LimitReader(f, maxPasswd), uid)
}

// homeIn looks for a user's line (passwd(5)).
func homeIn(r io.Reader, uid uint32) string {
	want := strconv.FormatUint(uint64(uid), 10)
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		f := strings.Split(lines.Text(), ":")
		if len(f) >= 6 && f[2] == want && len(f[5]) < unix.PathMax && strings.HasPrefix(f[5], "/") && !strings.Contains(f[5], "\x00") {
			return f[5]
		}
	}
	return "/"
}

const passwdFile = "/etc/passwd"

// ownEnvironment completes the first process's environment; a mount of the configuration may bring the container's /etc/passwd.
func (s *start) ownEnvironment() *specs.Process {
	return withEnvironment(s.spec.Process, func() (*os.File, error) {
		v := viewOf(s.layout.root, s.layout.mounts, "/", []string{passwdFile})
		defer v.close()
		return v.open(passwdFile, unix.O_PATH)
	})
}

// ownEnvironment completes that of one more process, as the running container's files are.
func (e *exec) ownEnvironment() *specs.Process {
	return withEnvironment(e.o.Process, func() (*os.File, error) {
		root := e.c.rootOf()
		if root == nil {
			return nil, unix.ESRCH
		}
		defer root.Close()
		return openIn(root, passwdFile, unix.O_PATH)
	})
}
