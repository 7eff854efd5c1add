// Package localhost has programs of this machine reach at [::1] what is published at 127.0.0.1.
//
// IPv6 routes no loopback addresses, and the kernel translates none of its addresses into IPv4's. A BPF program at connect(2), at the root of the
// control groups, changes the address that is asked for instead: a socket of IPv6 reaches ::ffff:127.0.0.1 by IPv4. It does so in the engine's
// network namespace, for ports that are published, and only where no program listens on [::1]. No packet passes through it, and a
// connection that is made does not need it any more. It is there as long as somebody holds its Link: the engine and the shims of
// containers that publish ports.
//
// What is published is a row of bits that the engine and the program share; changing it is no system call. A Redirect is safe for many goroutines.
package localhost

import (
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/bpf"
)

// Layout of the bits: one for each port of TCP, then one for each of UDP.
const (
	bytesEach = 1 << 16 / 8
	bitsSize  = 2 * bytesEach
)

// Redirect is the program at work. The zero value and nil are one that does nothing, as on kernels without such programs.
type Redirect struct {
	link *os.File

	mu     sync.Mutex // guards what follows
	bits   []byte     // shared with the kernel
	counts [2][1 << 16]uint8
}

// Open has the program begin, at the root of the control groups of version 2 that is mounted at root, for sockets of the calling thread's network namespace.
// note is a file in which it writes down which one it is; the one that is written there, of an earlier life, ends.
func Open(root, note string) (*Redirect, error) {
	dir, err := os.Open(root)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	cookie, err := namespaceCookie()
	if err != nil {
		return nil, fmt.Errorf("name the network namespace (since Linux 5.14): %w", err)
	}
	table, err := makeBits()
	if err != nil {
		return nil, fmt.Errorf("make a BPF map of ports: %w", err)
	}
	defer unix.Close(table)
	bits, err := unix.Mmap(table, 0, bitsSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map ports into memory: %w", err)
	}
	r := &Redirect{bits: bits}
	if r.link, err = start(dir, nameOf(note), program(table, cookie)); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, succeed(r.link, note)
}

// nameOf tells a program of this engine from others', also from other engines': it is in 15 bytes.
func nameOf(note string) string {
	h := fnv.New32a()
	h.Write([]byte(note))
	return fmt.Sprintf("wherry_%08x", h.Sum32())
}

// start loads a program and has it run at connect(2) of processes in a control group and below.
func start(group *os.File, name string, code []byte) (*os.File, error) {
	fd, err := bpf.LoadNamed(name, unix.BPF_PROG_TYPE_CGROUP_SOCK_ADDR, unix.BPF_CGROUP_INET6_CONNECT, code)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	link, err := createLink(fd, int(group.Fd()))
	if err != nil {
		return nil, fmt.Errorf("run a BPF program at connect(2) in %s: %w", group.Name(), err)
	}
	return os.NewFile(uintptr(link), "localhost"), nil
}

// succeed ends the program of an earlier life, which shims may hold still, and writes down which one there is now.
func succeed(link *os.File, note string) error {
	id, err := linkID(int(link.Fd()))
	if err != nil {
		return err
	}
	if b, err := os.ReadFile(note); err == nil {
		if before, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 32); err == nil && uint32(before) != id {
			detach(uint32(before), nameOf(note))
		}
	}
	return os.WriteFile(note, strconv.AppendUint(nil, uint64(id), 10), 0o600)
}

// Link keeps the program at work as long as a copy of it is open; nil where there is none.
func (r *Redirect) Link() *os.File {
	if r == nil {
		return nil
	}
	return r.link
}

// Publish has ports of 127.0.0.1 reached at [::1], too: of unix.IPPROTO_TCP or UDP, others are left alone. Each call is undone by one of Withdraw.
func (r *Redirect) Publish(proto uint8, first, last uint16) { r.count(proto, first, last, 1) }

// Withdraw undoes a Publish.
func (r *Redirect) Withdraw(proto uint8, first, last uint16) { r.count(proto, first, last, ^uint8(0)) }

func (r *Redirect) count(proto uint8, first, last uint16, change uint8) {
	if r == nil || proto != unix.IPPROTO_TCP && proto != unix.IPPROTO_UDP {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.bits == nil {
		return
	}
	kind := 0
	if proto == unix.IPPROTO_UDP {
		kind = 1
	}
	for p := int(first); p <= int(last); p++ {
		r.counts[kind][p] += change
		at, bit := kind*bytesEach+p/8, byte(1)<<(p%8)
		if r.counts[kind][p] > 0 {
			r.bits[at] |= bit
		} else {
			r.bits[at] &^= bit
		}
	}
}

// Close lets go of the program. Ports that are published go on being reached for as long as somebody else holds the Link.
func (r *Redirect) Close() error {
	if r == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	var errs []error
	if r.link != nil {
		errs = append(errs, r.link.Close())
	}
	if r.bits != nil {
		errs = append(errs, unix.Munmap(r.bits))
	}
	r.link, r.bits = nil, nil
	return errors.Join(errs...)
}
