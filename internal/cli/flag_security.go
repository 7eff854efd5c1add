package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"strings"
)

// securityOptions is what --security-opt and --strict ask for.
type securityOptions struct {
	list     []string
	unmasked bool // systempaths=unconfined
}

// parseSecurityOptions puts the contents of seccomp profiles in place of their files' names: the engine may see other files.
func parseSecurityOptions(list []string, strict bool) (securityOptions, error) {
	var o securityOptions
	for _, s := range list {
		key, value, has := strings.Cut(s, "=")
		if !has {
			key, value, has = strings.Cut(s, ":")
		}
		switch {
		case !has && key != "no-new-privileges":
			keys := []string{"no-new-privileges", "seccomp=", "apparmor=", "label=", "systempaths=", "wherry="}
			return o, fmt.Errorf("--security-opt %s: it has no value%s", s, didYouMean(s, keys, ": write NAME=value"))
		case key == "systempaths" && value == "unconfined":
			o.unmasked = true
			continue
		case key == "seccomp" && value != "unconfined" && value != "builtin":
			profile, err := readProfile(value)
			if err != nil {
				return o, fmt.Errorf("--security-opt %s: %w", s, err)
			}
			s = "seccomp=" + profile
		}
		o.list = append(o.list, s)
	}
	if strict {
		o.list = append(o.list, "wherry=strict")
	}
	return o, nil
}

func readProfile(file string) (string, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	var b bytes.Buffer
	if err := json.Compact(&b, data); err != nil {
		return "", fmt.Errorf("the profile is no JSON: %w", err)
	}
	return b.String(), nil
}

// capabilityNames writes capabilities as CAP_NAME, once each and sorted.
func capabilityNames(list []string) []string {
	set := map[string]bool{}
	for _, c := range list {
		c = strings.ToUpper(strings.TrimSpace(c))
		if c == "ALL" {
			return []string{"ALL"}
		}
		if !strings.HasPrefix(c, "CAP_") {
			c = "CAP_" + c
		}
		set[c] = true
	}
	if len(set) == 0 {
		return nil
	}
	return sorted(set)
}
