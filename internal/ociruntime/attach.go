package ociruntime

import (
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/sysprog"
)

// attachAll puts every mount in its place.
func (w *writer) attachAll() error {
	made := map[*attachment]sysprog.Word{}
	for _, a := range w.s.layout.mounts {
		w.attach(a, made)
	}
	if w.s.spec.Root.Readonly || w.s.layout.rootReadOnly {
		w.readOnly("the root file system", descriptor(w.s.layout.root))
	}
	return nil
}

func (w *writer) readOnly(name string, mount int) {
	w.Call("make "+name+" read-only", unix.SYS_MOUNT_SETATTR, mount, w.none, unix.AT_EMPTY_PATH, w.Bytes(mountAttr(unix.MOUNT_ATTR_RDONLY)), mountAttrSize)
}

// attach puts one mount in its place, making it first where it belongs to a namespace of the child.
func (w *writer) attach(a *attachment, made map[*attachment]sysprog.Word) {
	if a.source == nil {
		w.mountOwn(a, made)
		return
	}
	if a.part != "" {
		flags := unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC | unix.AT_SYMLINK_NOFOLLOW
		w.move(a, w.Store(w.Call("clone "+a.at, unix.SYS_OPEN_TREE, descriptor(a.source), w.String(a.part), flags)), made)
		return
	}
	w.move(a, descriptor(a.source), made)
	if a.propagation != 0 && !w.later(a) {
		w.propagate(a, descriptor(a.source))
	}
}

// mountOwn makes and attaches a file system of the child's own namespaces.
func (w *writer) mountOwn(a *attachment, made map[*attachment]sysprog.Word) {
	fs := w.Store(w.Call("open "+a.fstype, unix.SYS_FSOPEN, w.String(a.fstype), unix.FSOPEN_CLOEXEC))
	w.Call("name "+a.fstype, unix.SYS_FSCONFIG, fs, unix.FSCONFIG_SET_STRING, w.String("source"), w.String(a.fstype), 0)
	for _, d := range a.data {
		key, value, has := strings.Cut(d, "=")
		if has {
			w.Call("set option "+d+" of "+a.fstype, unix.SYS_FSCONFIG, fs, unix.FSCONFIG_SET_STRING, w.String(key), w.String(value), 0)
		} else {
			w.Call("set option "+d+" of "+a.fstype, unix.SYS_FSCONFIG, fs, unix.FSCONFIG_SET_FLAG, w.String(key), nil, 0)
		}
	}
	create := w.Call("make "+a.fstype, unix.SYS_FSCONFIG, fs, unix.FSCONFIG_CMD_CREATE, nil, nil, 0)
	mount := w.Call("mount "+a.fstype, unix.SYS_FSMOUNT, fs, unix.FSMOUNT_CLOEXEC, a.flags)
	word := w.Store(mount)
	made[a] = word
	if a.instead != nil {
		w.JumpIfEqual(w.Word(1), 1, 1)
		for _, op := range []sysprog.Op{create, mount} {
			w.Tolerate(op, w.Len()-int(op)-1, unix.EPERM)
		}
		w.Store(w.Call("show the host's "+a.fstype, unix.SYS_FCNTL, descriptor(a.instead), unix.F_DUPFD_CLOEXEC, 3), word)
	}
	w.move(a, word, made)
	if a.optional { // a kernel or a host that refuses it: go on without
		w.Tolerate(create, w.Len()-int(create)-1, unix.EPERM, unix.EACCES)
		w.Tolerate(mount, w.Len()-int(mount)-1, unix.EPERM, unix.EACCES)
	}
	if a.fstype == "proc" {
		w.proc = word
	}
}

// move attaches a detached mount (a descriptor or the word of one) at its place.
func (w *writer) move(a *attachment, source any, made map[*attachment]sysprog.Word) {
	var target any
	if a.target != nil {
		target = descriptor(a.target)
	} else {
		how := w.Bytes(openHow(unix.O_PATH|unix.O_CLOEXEC, inRoot))
		rest := "." + path.Clean("/"+a.rest)
		target = w.Store(w.Call("find "+a.at, unix.SYS_OPENAT2, made[a.parent], w.String(rest), how, openHowSize))
	}
	w.Call("attach "+a.at, unix.SYS_MOVE_MOUNT, source, w.none, target, w.none, moveByDescriptors)
}
