package container

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/network"
)

// linkEnv are the variables by which programs find those that their container is linked to, as Docker has always named them. What a linked
// container has in its own environment is among them; secrets are not.
func linkEnv(s *Service, r *Record) (out []string) {
	for _, l := range r.Links {
		c, err := s.index.find(l.ID)
		if err != nil {
			continue
		}
		networks, _, _ := s.o.Networks.Endpoints(l.ID)
		if e := networks[network.NetworkBridge]; e != nil && e.IPAddress.IsValid() {
			out = append(out, linkVariables("/"+r.Name+"/"+l.Alias, e.IPAddress, c.record())...)
		}
	}
	return out
}

func linkVariables(name string, address netip.Addr, to *Record) []string {
	alias := strings.ReplaceAll(strings.ToUpper(name[strings.LastIndexByte(name, '/')+1:]), "-", "_")
	ports := slices.SortedFunc(maps.Keys(to.Config.ExposedPorts), func(a, b network.Port) int {
		return cmp.Or(cmp.Compare(a.Num(), b.Num()), -cmp.Compare(rank(a), rank(b)))
	})
	var out []string
	set := func(key, format string, args ...any) { out = append(out, key+"="+fmt.Sprintf(format, args...)) }
	url := func(p network.Port) string { return fmt.Sprintf("%s://%s:%d", p.Proto(), address, p.Num()) }
	prefix := func(p network.Port) string {
		return fmt.Sprintf("%s_PORT_%d_%s", alias, p.Num(), strings.ToUpper(string(p.Proto())))
	}
	if len(ports) > 0 {
		set(alias+"_PORT", "%s", url(ports[0]))
	}
	for i, first := 0, 0; i < len(ports); i++ {
		p := ports[i]
		set(prefix(p), "%s", url(p))
		set(prefix(p)+"_ADDR", "%s", address)
		set(prefix(p)+"_PORT", "%d", p.Num())
		set(prefix(p)+"_PROTO", "%s", p.Proto())
		if i+1 < len(ports) && ports[i+1].Proto() == p.Proto() && ports[i+1].Num() == p.Num()+1 {
			continue // in the middle of a range
		}
		if from := ports[first]; from != p {
			set(prefix(from)+"_START", "%s", url(from))
			set(prefix(from)+"_PORT_START", "%d", from.Num())
			set(prefix(from)+"_END", "%s", url(p))
			set(prefix(from)+"_PORT_END", "%d", p.Num())
		}
		first = i + 1
	}
	set(alias+"_NAME", "%s", name)
	for _, kv := range to.Config.Env {
		if key, _, ok := strings.Cut(kv, "="); ok && key != "HOME" && key != "PATH" {
			out = append(out, alias+"_ENV_"+kv)
		}
	}
	return out
}

func rank(p network.Port) int {
	if p.Proto() == network.TCP {
		return 1
	}
	return 0
}
