package ociruntime

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// loopback sets lo up in a network namespace that the child has made for a bundle: nobody else does, and programs count on 127.0.0.1. The
// engine sets up its own namespaces.
func (w *writer) loopback() error {
	if w.s.ns.create&unix.CLONE_NEWNET == 0 || w.s.o.Rootfs != nil {
		return nil
	}
	request := make([]byte, 40) // struct ifreq (netdevice(7)): a name of 16 bytes, flags
	copy(request, "lo")
	binary.NativeEndian.PutUint16(request[unix.IFNAMSIZ:], unix.IFF_UP)
	socket := w.Store(w.Call("open a socket", unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0))
	set := w.Call("set the loopback interface up", unix.SYS_IOCTL, socket, unix.SIOCSIFFLAGS, w.Bytes(request))
	w.Tolerate(set, 0, unix.EPERM)
	w.Call("close a socket", unix.SYS_CLOSE, socket)
	return nil
}
