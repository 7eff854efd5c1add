package sandbox

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Files are the ones of /etc that the engine writes for a container; they lie in its own folder and are bound into it.
type Files struct{ Hosts, Hostname, ResolvConf string }

// FilesIn names the files of a container's folder.
func FilesIn(dir string) Files {
	return Files{Hosts: filepath.Join(dir, "hosts"), Hostname: filepath.Join(dir, "hostname"), ResolvConf: filepath.Join(dir, "resolv.conf")}
}

// Content of the files.
type Content struct {
	Hosts, ResolvConf []byte
	Hostname          string
}

// Write writes the files in place: a running container that has them bound sees the new content.
func (f Files) Write(c Content) error {
	for _, row := range []struct {
		path    string
		content []byte
	}{{f.Hosts, c.Hosts}, {f.Hostname, []byte(c.Hostname + "\n")}, {f.ResolvConf, c.ResolvConf}} {
		if err := rewrite(row.path, row.content); err != nil {
			return fmt.Errorf("write the container's %s: %w", filepath.Base(row.path), err)
		}
	}
	return nil
}

// rewrite does not wait for a running container, whose processes may hold a lease on the file (fcntl(2)): an open would stand still until the
// kernel takes that away, some 45 seconds later.
func rewrite(path string, content []byte) error {
	f, err := os.OpenFile(path, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o644)
	if errors.Is(err, unix.EAGAIN) {
		return fmt.Errorf("%w: a process of the container holds a lease on it, which the kernel takes away after a while: try again then, or stop the container", err)
	}
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	return errors.Join(err, f.Close())
}

// HostNetwork says what the files of a container on the host's network, or without one, contain.
type HostNetwork struct {
	None                       bool // no network at all
	Hostname                   string
	ExtraHosts                 []string // "name:address"
	DNS                        []netip.Addr
	DNSSearch, DNSOptions      []string
	HostHosts, HostResolveConf string // the host's own files; "": /etc/hosts and /etc/resolv.conf
}

const plainHosts = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\nff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n"

// Content is the host's own files with what was asked for on top.
func (n HostNetwork) Content() Content {
	read := func(path, fallback string) []byte {
		if path == "" {
			path = fallback
		}
		b, _ := os.ReadFile(path)
		return b
	}
	c := Content{Hostname: n.Hostname, Hosts: []byte(plainHosts), ResolvConf: read(n.HostResolveConf, "/etc/resolv.conf")}
	if !n.None {
		c.Hosts = read(n.HostHosts, "/etc/hosts")
	}
	extra := n.extraHosts()
	if !n.None && !strings.Contains(string(c.Hosts)+extra, "host.docker.internal") {
		// The host itself is found by the names that containers on other networks find it by.
		c.Hosts = append(c.Hosts, "127.0.0.1\thost.docker.internal host.containers.internal\n"...)
	}
	c.Hosts = append(c.Hosts, extra...)
	c.ResolvConf = n.resolvConf(c.ResolvConf)
	return c
}

func (n HostNetwork) extraHosts() string {
	var b strings.Builder
	for _, e := range n.ExtraHosts {
		name, address, ok := strings.Cut(e, ":")
		if !ok {
			continue
		}
		if address == "host-gateway" {
			address = "127.0.0.1"
		}
		fmt.Fprintf(&b, "%s\t%s\n", strings.Trim(address, "[]"), name)
	}
	return b.String()
}

// resolvConf replaces the lines of the kinds that are asked for.
func (n HostNetwork) resolvConf(host []byte) []byte {
	var b strings.Builder
	replaced := map[string]bool{"nameserver": len(n.DNS) > 0, "search": len(n.DNSSearch) > 0, "domain": len(n.DNSSearch) > 0, "options": len(n.DNSOptions) > 0}
	for line := range strings.Lines(string(host)) {
		if f := strings.Fields(line); len(f) == 0 || !replaced[f[0]] {
			b.WriteString(strings.TrimSuffix(line, "\n") + "\n")
		}
	}
	for _, a := range n.DNS {
		fmt.Fprintf(&b, "nameserver %s\n", a)
	}
	if len(n.DNSSearch) > 0 && (len(n.DNSSearch) > 1 || n.DNSSearch[0] != ".") {
		fmt.Fprintf(&b, "search %s\n", strings.Join(n.DNSSearch, " "))
	}
	if len(n.DNSOptions) > 0 {
		fmt.Fprintf(&b, "options %s\n", strings.Join(n.DNSOptions, " "))
	}
	return []byte(b.String())
}
