package network

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/network"
)

// portHolder says which process has a port of the host: "nginx (pid 4711)", "" where it cannot be seen. It looks in the calling thread's namespace.
func portHolder(host netip.AddrPort, proto network.IPProtocol) string {
	if inodes := socketsOf(host, proto); len(inodes) > 0 {
		return holderOf(inodes)
	}
	return ""
}

func socketsOf(host netip.AddrPort, proto network.IPProtocol) (inodes []string) {
	for _, suffix := range []string{"", "6"} {
		f, err := os.Open("/proc/thread-self/net/" + string(proto) + suffix)
		if err != nil {
			continue
		}
		inodes = append(inodes, socketsAt(bufio.NewScanner(f), host, proto)...)
		f.Close()
	}
	return inodes
}

// holderOf finds a process that has one of some sockets.
func holderOf(inodes []string) string {
	links, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, link := range links {
		target, err := os.Readlink(link)
		inode, ok := strings.CutPrefix(target, "socket:[")
		if err != nil || !ok || !slices.Contains(inodes, strings.TrimSuffix(inode, "]")) {
			continue
		}
		pid := strings.Split(link, "/")[2]
		name, _ := os.ReadFile("/proc/" + pid + "/comm")
		return fmt.Sprintf("%s (pid %s)", bytes.TrimSpace(name), pid)
	}
	return ""
}

// listenAddresses are those at which processes of the host have a port.
func listenAddresses(port uint16, proto network.IPProtocol) (out []netip.Addr) {
	for _, suffix := range []string{"", "6"} {
		f, err := os.Open("/proc/thread-self/net/" + string(proto) + suffix)
		if err != nil {
			continue
		}
		for lines := bufio.NewScanner(f); lines.Scan(); {
			fields := strings.Fields(lines.Text())
			if len(fields) < 10 || proto == network.TCP && fields[3] != "0A" {
				continue
			}
			address, hex, _ := strings.Cut(fields[1], ":")
			number, err := strconv.ParseUint(hex, 16, 16)
			if a := kernelAddress(address); err == nil && uint16(number) == port && a.IsValid() {
				out = append(out, a)
			}
		}
		f.Close()
	}
	return out
}

// socketsAt reads lines such as those of /proc/net/tcp and returns the inodes of sockets that stand in the way of a port.
func socketsAt(lines *bufio.Scanner, host netip.AddrPort, proto network.IPProtocol) []string {
	var out []string
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) < 10 {
			continue
		}
		address, port, _ := strings.Cut(f[1], ":")
		number, err := strconv.ParseUint(port, 16, 16)
		if err != nil || uint16(number) != host.Port() || proto == network.TCP && f[3] != "0A" {
			continue
		}
		if a := kernelAddress(address); a.IsUnspecified() || host.Addr().IsUnspecified() || a == host.Addr() {
			out = append(out, f[9])
		}
	}
	return out
}

// kernelAddress reads an address in the kernel's notation: words of 32 bits, each in the machine's order.
func kernelAddress(s string) netip.Addr {
	b, err := hex.DecodeString(s)
	if err != nil || len(b)%4 != 0 {
		return netip.Addr{}
	}
	for i := 0; i+4 <= len(b); i += 4 {
		slices.Reverse(b[i : i+4])
	}
	a, _ := netip.AddrFromSlice(b)
	return a.Unmap()
}
