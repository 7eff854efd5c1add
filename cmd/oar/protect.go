package main

import (
	"bytes"
	"fmt"
	"os"
	"strconv"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/rootfs"
)

// protectBinary sees to it that a container whose root is the host's cannot write to this binary through /proc/PID/exe of a process that
// has not executed the container's program yet, or was told to execute /proc/self/exe: it executes the binary again, from a read-only mount
// of its own (CVE-2019-5736). In a user namespace the file's owner is nobody that the container could be, unless this process is in one itself.
func protectBinary() error {
	const self = "/proc/self/exe"
	var st unix.Statfs_t
	if err := unix.Statfs(self, &st); err != nil {
		return fmt.Errorf("look at the runtime's own binary: %w", err)
	}
	if st.Flags&unix.ST_RDONLY != 0 {
		return nil
	}
	program, err := rootfs.Bind(self, rootfs.BindOptions{Set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV})
	if err != nil {
		return fmt.Errorf("make a read-only mount of the runtime's own binary: %w", err)
	}
	return fmt.Errorf("execute the runtime's own binary again: %w", unix.Exec("/proc/self/fd/"+strconv.Itoa(int(program.Fd())), os.Args, os.Environ()))
}

// hasUserNamespace says that the container has one of its own or joins one.
func hasUserNamespace(spec *specs.Spec) bool {
	if spec.Linux == nil {
		return false
	}
	for _, ns := range spec.Linux.Namespaces {
		if ns.Type == specs.UserNamespace {
			return true
		}
	}
	return false
}

// mayNameUserNamespace looks for the word "user" as a value, before a configuration is decoded: one without it has no user namespace,
// so the binary is executed again at once and decodes it only then. A word that hides in escapes costs an execution, and no more.
func mayNameUserNamespace(config []byte) bool {
	word := []byte(`"user"`)
	for {
		i := bytes.Index(config, word)
		if i < 0 {
			return false
		}
		config = bytes.TrimLeft(config[i+len(word):], " \t\r\n")
		if len(config) == 0 || config[0] != ':' {
			return true
		}
	}
}
