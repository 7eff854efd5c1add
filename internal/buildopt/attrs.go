package buildopt

import (
	"fmt"
	"maps"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"
)

// HostGateway is the address that stands for the machine itself; the engine knows it.
const HostGateway = "host-gateway"

// FrontendAttrs is what BuildKit's Dockerfile frontend is told, save where contexts and Dockerfile are. proxies are build arguments that the
// user's config.json sets; what is said in words counts more.
func (o *Options) FrontendAttrs(proxies map[string]string) (map[string]string, error) {
	attrs := map[string]string{"image-resolve-mode": "local"}
	for k, v := range proxies {
		attrs["build-arg:"+k] = v
	}
	for _, add := range []func(map[string]string) error{o.addArgs, o.addLabels, o.addSourceDate, o.addHosts, o.addAttests, o.addLimits} {
		if err := add(attrs); err != nil {
			return nil, err
		}
	}
	switch strings.ToLower(o.Pull) {
	case "always", "true", "newer":
		attrs["image-resolve-mode"] = "pull"
	}
	switch {
	case o.NoCache:
		attrs["no-cache"] = ""
	case len(o.NoCacheStages) > 0:
		attrs["no-cache"] = strings.Join(o.NoCacheStages, ",")
	}
	if o.Network != "" && o.Network != "default" {
		attrs["force-network-mode"] = o.Network
	}
	for key, value := range map[string]string{"target": o.Target, "platform": strings.Join(o.Platforms, ","), "cgroup-parent": o.CgroupParent} {
		if value != "" {
			attrs[key] = value
		}
	}
	return attrs, nil
}

func (o *Options) addArgs(attrs map[string]string) error {
	for _, s := range o.Args {
		name, value, has, err := pair("--build-arg", s)
		if err != nil {
			return err
		}
		if !has {
			if value, has = os.LookupEnv(name); !has {
				continue
			}
		}
		attrs["build-arg:"+name] = value
	}
	return nil
}

func (o *Options) addLabels(attrs map[string]string) error {
	for _, s := range o.Labels {
		name, value, _, err := pair("--label", s)
		if err != nil {
			return err
		}
		attrs["label:"+name] = value
	}
	return nil
}

// addSourceDate sets SOURCE_DATE_EPOCH from the flag, a --build-arg, or the environment, in this order.
func (o *Options) addSourceDate(attrs map[string]string) error {
	const key = "build-arg:SOURCE_DATE_EPOCH"
	text, from := o.SourceDate, "--source-date-epoch"
	if text == "" {
		if _, ok := attrs[key]; ok {
			return nil
		}
		text, from = os.Getenv("SOURCE_DATE_EPOCH"), "SOURCE_DATE_EPOCH"
	}
	if text == "" {
		return nil
	}
	if _, err := strconv.ParseInt(text, 10, 64); err != nil {
		t, err := time.Parse(time.RFC3339, text)
		if err != nil {
			return fmt.Errorf("%s %q: give seconds since 1970, or a time such as 2026-01-31T12:00:00Z", from, text)
		}
		text = strconv.FormatInt(t.Unix(), 10)
	}
	attrs[key] = text
	return nil
}

// addHosts writes names as BuildKit wants them; Docker lets people write NAME:ADDRESS and NAME=ADDRESS.
func (o *Options) addHosts(attrs map[string]string) error {
	var list []string
	for _, s := range o.AddHosts {
		i := strings.IndexAny(s, "=:")
		if i < 1 {
			return fmt.Errorf("--add-host %q: write NAME:ADDRESS", s)
		}
		name, addr := s[:i], strings.Trim(s[i+1:], "[]")
		if addr != HostGateway {
			if _, err := netip.ParseAddr(addr); err != nil {
				return fmt.Errorf("--add-host %q: %q is no address", s, addr)
			}
		}
		list = append(list, name+"="+addr)
	}
	if len(list) > 0 {
		attrs["add-hosts"] = csvLine(list)
	}
	return nil
}

// addAttests reads --attest, --provenance and --sbom. Nothing is attached unless it is asked for: what an attestation holds differs from
// build to build, and with it the digest of the image.
func (o *Options) addAttests(attrs map[string]string) error {
	for _, s := range o.Attest {
		kind, values, err := typed(s, nil)
		if err != nil {
			return fmt.Errorf("--attest %q: %w", s, err)
		}
		if kind != "sbom" && kind != "provenance" {
			return fmt.Errorf("--attest %q: the type is sbom or provenance", s)
		}
		if off, _ := strconv.ParseBool(values["disabled"]); !off {
			attrs["attest:"+kind] = attestWords(s)
		}
	}
	for flag, text := range map[string]string{"provenance": o.Provenance, "sbom": o.SBOM} {
		if text == "" {
			continue
		}
		on, err := strconv.ParseBool(text)
		switch {
		case err == nil && !on:
			delete(attrs, "attest:"+flag)
		case err == nil:
			attrs["attest:"+flag] = ""
		case !strings.Contains(text, "="):
			return fmt.Errorf("--%s %q: it can be true, false or KEY=value", flag, text)
		default:
			attrs["attest:"+flag] = text
		}
	}
	return nil
}

// attestWords drops what an attestation's text says about its type.
func attestWords(s string) string {
	var keep []string
	for _, w := range strings.Split(s, ",") {
		if w != "" && !strings.HasPrefix(w, "type=") {
			keep = append(keep, w)
		}
	}
	return strings.Join(keep, ",")
}

func (o *Options) addLimits(attrs map[string]string) error {
	for key, text := range map[string]string{"shm-size": o.ShmSize, "memory": o.Memory, "memswap": o.MemorySwap} {
		n, err := bytes(text)
		if err != nil {
			return fmt.Errorf("--%s %q: %w", key, text, err)
		}
		if n != 0 {
			attrs[key] = strconv.FormatInt(n, 10)
		}
	}
	for key, n := range map[string]int64{"cpushares": o.CPUShares, "cpuperiod": o.CPUPeriod, "cpuquota": o.CPUQuota} {
		if n != 0 {
			attrs[key] = strconv.FormatInt(n, 10)
		}
	}
	maps.Copy(attrs, nonEmpty(map[string]string{"cpusetcpus": o.CPUs, "cpusetmems": o.Mems, "ulimit": csvLine(o.Ulimits)}))
	return nil
}

func nonEmpty(m map[string]string) map[string]string {
	maps.DeleteFunc(m, func(_, v string) bool { return v == "" })
	return m
}

// Entitlements are what steps may do beyond the usual.
func (o *Options) Entitlements() []string {
	list := append([]string(nil), o.Allow...)
	if o.Network == "host" {
		list = append(list, "network.host")
	}
	return list
}
