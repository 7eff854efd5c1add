package network

import (
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// resolvConf is what the file of that name says.
type resolvConf struct {
	servers         []netip.Addr
	search, options []string
}

func parseResolvConf(b []byte) resolvConf {
	var r resolvConf
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		switch f[0] {
		case "nameserver":
			if a, err := netip.ParseAddr(f[1]); err == nil {
				r.servers = append(r.servers, a.Unmap())
			}
		case "search", "domain":
			r.search = f[1:]
		case "options":
			r.options = append(r.options, f[1:]...)
		}
	}
	return r
}

func (r resolvConf) format() []byte {
	var b strings.Builder
	for _, a := range r.servers {
		b.WriteString("nameserver " + a.String() + "\n")
	}
	if len(r.search) > 0 {
		b.WriteString("search " + strings.Join(r.search, " ") + "\n")
	}
	if len(r.options) > 0 {
		b.WriteString("options " + strings.Join(r.options, " ") + "\n")
	}
	return []byte(b.String())
}

// Resolvers are the servers and words of resolv.conf for containers that name none; of what is empty the host's hold.
type Resolvers struct{ Servers, Search, Options []string }

func (r Resolvers) read() resolvConf {
	return resolvConf{servers: addresses(r.Servers), search: r.Search, options: r.Options}
}

// over is another file with what r says in its place.
func (r resolvConf) over(other resolvConf) resolvConf {
	if len(r.servers) > 0 {
		other.servers = r.servers
	}
	if len(r.search) > 0 {
		other.search = r.search
	}
	if len(r.options) > 0 {
		other.options = r.options
	}
	return other
}

// hostConf knows the host's resolvers, and reads its file again when it has changed. Safe for many goroutines.
type hostConf struct {
	said resolvConf // by the settings, in place of the file

	mu     sync.Mutex // guards what follows
	stamp  fileStamp
	parsed resolvConf
}

// fileStamp tells one content of a file from another.
type fileStamp struct {
	inode        uint64
	size         int64
	seconds, sub int64
}

const hostResolvConf = "/etc/resolv.conf"

// read is the host's own file, under what the settings say; a host without it has no other resolvers.
func (h *hostConf) read() resolvConf { return h.said.over(h.file()) }

func (h *hostConf) file() resolvConf {
	h.mu.Lock()
	defer h.mu.Unlock()
	var st unix.Stat_t
	if unix.Stat(hostResolvConf, &st) != nil {
		return resolvConf{}
	}
	if now := (fileStamp{st.Ino, st.Size, int64(st.Mtim.Sec), int64(st.Mtim.Nsec)}); now != h.stamp {
		b, err := os.ReadFile(hostResolvConf)
		if err != nil {
			return resolvConf{}
		}
		h.parsed, h.stamp = parseResolvConf(b), now
	}
	return h.parsed
}

// behind is the same for those who cannot ask the host itself: where the file only names systemd-resolved's stub, resolved's own list says
// who stands behind.
func (h *hostConf) behind() resolvConf {
	r := h.read()
	if slices.Equal(r.servers, []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 53})}) {
		if b, err := os.ReadFile("/run/systemd/resolve/resolv.conf"); err == nil {
			if behind := parseResolvConf(b); len(behind.servers) > 0 {
				r.servers = behind.servers
			}
		}
	}
	return r
}

// reachable are the servers that a container can ask itself: not those at the host's loopback addresses or behind one of its links.
func (r resolvConf) reachable() []netip.Addr {
	return slices.DeleteFunc(slices.Clone(r.servers), func(a netip.Addr) bool { return a.IsLoopback() || a.Zone() != "" })
}

// resolvConf is what a container on bridges gets. The caller holds the lock.
func (s *state) resolvConf(h *holding) []byte {
	r := s.conf.behind()
	own := len(h.Request.DNSOptions) > 0
	if own {
		r.options = h.Request.DNSOptions
	}
	if len(h.Request.DNSSearch) > 0 {
		r.search = slices.DeleteFunc(slices.Clone(h.Request.DNSSearch), func(d string) bool { return d == "." })
	}
	switch {
	case s.needsResolver(h):
		r.servers = []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 11})}
		if !slices.ContainsFunc(r.options, func(o string) bool { return strings.HasPrefix(o, "ndots:") }) {
			r.options = append(slices.Clone(r.options), "ndots:0")
		}
	case len(h.Request.DNS) > 0:
		r.servers = addresses(h.Request.DNS)
	default:
		r.servers = r.reachable()
	}
	return r.format()
}

func addresses(texts []string) []netip.Addr {
	var out []netip.Addr
	for _, t := range texts {
		if a, err := netip.ParseAddr(t); err == nil {
			out = append(out, a)
		}
	}
	return out
}
