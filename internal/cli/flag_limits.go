package cli

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"
)

// ulimitFlag collects --ulimit NAME=SOFT[:HARD]; the last one of a name counts.
type ulimitFlag struct{ byName map[string]*units.Ulimit }

func (f *ulimitFlag) String() string { return "" }
func (f *ulimitFlag) Type() string   { return "ulimit" }

func (f *ulimitFlag) Set(s string) error {
	u, err := units.ParseUlimit(s)
	if err != nil {
		if name, _, ok := strings.Cut(s, "="); ok && strings.Contains(err.Error(), "type") {
			return fmt.Errorf("unknown limit %q%s", name, didYouMean(name, ulimitNames(), ": it can be "+strings.Join(ulimitNames(), ", ")))
		}
		if strings.Contains(err.Error(), "soft limit must") {
			return errors.New("the soft limit is above the hard one: write NAME=SOFT:HARD")
		}
		return errors.New("write NAME=SOFT[:HARD], such as nofile=1024:4096")
	}
	if f.byName == nil {
		f.byName = map[string]*units.Ulimit{}
	}
	f.byName[u.Name] = u
	return nil
}

func ulimitNames() []string {
	return strings.Fields("as core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack")
}

func (f *ulimitFlag) list() []*units.Ulimit {
	all := []*units.Ulimit{}
	for _, name := range sorted(f.byName) {
		all = append(all, f.byName[name])
	}
	return all
}

// parseRestart reads --restart no, always, unless-stopped or on-failure[:MOST].
func parseRestart(s string) (p container.RestartPolicy, err error) {
	name, count, has := strings.Cut(s, ":")
	p.Name = container.RestartPolicyMode(name)
	if has {
		if p.MaximumRetryCount, err = strconv.Atoi(count); err != nil {
			return p, fmt.Errorf("--restart %s: how often is a number, such as on-failure:5", s)
		}
	}
	names := []string{"no", "always", "on-failure", "unless-stopped"}
	switch {
	case name != "" && !contains(names, name):
		return p, fmt.Errorf("--restart %s: unknown policy %q%s", s, name, didYouMean(name, names, ": it can be no, always, unless-stopped or on-failure[:MOST]"))
	case has && name != "on-failure":
		return p, fmt.Errorf("--restart %s: only on-failure takes a number", s)
	case p.MaximumRetryCount < 0:
		return p, fmt.Errorf("--restart %s: how often cannot be negative", s)
	}
	return p, nil
}

func checkSysctl(s string) (string, error) {
	name, _, ok := strings.Cut(s, "=")
	if !ok || name == "" {
		return "", errors.New("write NAME=value, such as net.ipv4.ip_forward=1")
	}
	return s, nil
}

// checkHost takes NAME:ADDRESS or NAME=ADDRESS, with IPv6 in brackets or bare, and host-gateway.
func checkHost(s string) (string, error) {
	at := strings.IndexAny(s, ":=")
	if at <= 0 || at == len(s)-1 {
		return "", errors.New("write NAME:ADDRESS, such as db:10.0.0.5")
	}
	name, address := s[:at], s[at+1:]
	if address == "host-gateway" {
		return name + ":" + address, nil
	}
	if strings.HasPrefix(address, "[") && strings.HasSuffix(address, "]") {
		address = address[1 : len(address)-1]
	}
	if _, err := parseAddress(address); err != nil {
		return "", err
	}
	return name + ":" + address, nil
}

func checkDNS(s string) (string, error) {
	_, err := parseAddress(s)
	return s, err
}
