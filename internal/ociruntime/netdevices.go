package ociruntime

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"unicode"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/network/link"
)

// checkNetDevices refuses what cannot be moved before anything is made.
func checkNetDevices(devices map[string]specs.LinuxNetDevice, n *namespaces) error {
	if len(devices) > 0 && !n.has(unix.CLONE_NEWNET) {
		return errors.New("linux.netDevices: the container has the host's network (linux.namespaces): there is nowhere to move interfaces to")
	}
	for name, d := range devices {
		if !validLink(name) {
			return fmt.Errorf("linux.netDevices: %q is not a name of an interface", name)
		}
		if d.Name != "" && !validLink(strings.Replace(d.Name, "%d", "0", 1)) {
			return fmt.Errorf("linux.netDevices: %q is not a name of an interface", d.Name)
		}
	}
	return nil
}

// validLink is what the kernel says of names.
func validLink(name string) bool {
	bad := func(r rune) bool { return r == '/' || r == ':' || r == '%' || unicode.IsSpace(r) }
	return name != "" && name != "." && name != ".." && len(name) < unix.IFNAMSIZ && !strings.ContainsFunc(name, bad)
}

// moveDevices gives interfaces of this process's network namespace to the container's. They are not taken back: virtual ones go with the
// namespace, physical ones return by themselves.
func moveDevices(s *start, _ context.Context) error {
	devices := s.spec.Linux.NetDevices
	if len(devices) == 0 {
		return nil
	}
	path := "/proc/" + strconv.Itoa(s.process.Pid) + "/ns/net"
	namespace, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("open the container's network namespace: %w", err)
	}
	defer namespace.Close()
	for _, name := range slices.Sorted(maps.Keys(devices)) {
		if err := (link.Move{Name: name, As: devices[name].Name, To: namespace}).Do(); err != nil {
			return err
		}
	}
	return nil
}
