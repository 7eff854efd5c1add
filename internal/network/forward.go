package network

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/network/link"
)

const (
	forward4 = "net/ipv4/ip_forward"
	forward6 = "net/ipv6/conf/all/forwarding"
)

func readSysctl(key string) string {
	b, _ := os.ReadFile("/proc/sys/" + key) // a kernel without the setting has no value
	return strings.TrimSpace(string(b))
}

// forwardKey is the setting by which the kernel decides whether packets that come by a link go on to another one: of IPv6 it is one for all links.
func forwardKey(link string, six bool) string {
	if six {
		return forward6
	}
	return "net/ipv4/conf/" + link + "/forwarding"
}

func forwards(link string, six bool) bool { return readSysctl(forwardKey(link, six)) != "0" }

// forward makes the host forward IPv4. Where it did not before, the links that it has at that moment are noted: the host is not to become
// a router between them only because it runs containers.
func (k *kernel) forward(note, bootID string) error {
	if readSysctl(forward4) == "1" {
		b, err := os.ReadFile(note)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("read which links packets do not pass between: %w", err)
		}
		boot, links, _ := strings.Cut(string(b), "\n")
		if boot == bootID {
			k.fire.Still(strings.Fields(links))
		}
		return nil
	}
	links, err := netlink.LinkList()
	if err != nil {
		return fmt.Errorf("list the host's links: %w", err)
	}
	var names []string
	for _, l := range links {
		if a := l.Attrs(); a.RawFlags&unix.IFF_LOOPBACK == 0 && a.MasterIndex == 0 && l.Type() != "bridge" {
			names = append(names, a.Name)
		}
	}
	if err := writeFile(note, []byte(bootID+"\n"+strings.Join(names, "\n")), false); err != nil {
		return fmt.Errorf("note which links packets do not pass between: %w", err)
	}
	k.fire.Still(names)
	return link.SetSysctl(forward4, "1")
}

// forwardSix makes the host forward IPv6. A host that forwards does not listen to routers unless it is told to (accept_ra 2): links that
// did go on doing so.
func forwardSix() error {
	if readSysctl(forward6) == "1" {
		return nil
	}
	keys, _ := filepath.Glob("/proc/sys/net/ipv6/conf/*/accept_ra")
	for _, path := range keys {
		key := strings.TrimPrefix(path, "/proc/sys/")
		if readSysctl(key) == "1" {
			if err := link.SetSysctl(key, "2"); err != nil {
				return err
			}
		}
	}
	return link.SetSysctl(forward6, "1")
}

// setSysctls sets what a container gets, in the calling thread's namespace; the keys have dots.
func setSysctls(to *link.Sysctls, settings map[string]string) error {
	for key, value := range settings {
		if err := to.Set(strings.ReplaceAll(key, ".", "/"), value); err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
	return nil
}
