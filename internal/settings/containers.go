package settings

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/docker/go-units"
)

// Shm is ShmSize in bytes.
func (c *Containers) Shm() int64 {
	n, err := units.RAMInBytes(c.ShmSize)
	if err != nil {
		return 0 // check has refused it
	}
	return n
}

// Limits are Ulimits, by name.
func (c *Containers) Limits() []*units.Ulimit {
	var out []*units.Ulimit
	for _, text := range c.Ulimits {
		if u, err := units.ParseUlimit(text); err == nil {
			out = append(out, u)
		}
	}
	return out
}

// LogOptions are LogOpts, by name.
func (c *Containers) LogOptions() map[string]string {
	out := map[string]string{}
	for _, text := range c.LogOpts {
		name, value, _ := strings.Cut(text, "=")
		out[name] = value
	}
	return out
}

func (c *Containers) check() (key, wrong string) {
	if n, err := units.RAMInBytes(c.ShmSize); err != nil || n < 1 {
		return "containers.shm-size", fmt.Sprintf("%q is no size, such as \"64m\" or \"1g\"", c.ShmSize)
	}
	for _, text := range c.Ulimits {
		if _, err := units.ParseUlimit(text); err != nil {
			return "containers.ulimits", fmt.Sprintf("%q: %v: write \"nofile=1024:4096\"", text, err)
		}
	}
	for _, text := range c.LogOpts {
		if name, value, ok := strings.Cut(text, "="); !ok || name == "" || value == "" {
			return "containers.log-opts", fmt.Sprintf("%q: write \"max-size=10m\"", text)
		}
	}
	for _, dir := range c.CDISpecDirs {
		if !filepath.IsAbs(dir) {
			return "containers.cdi-spec-dirs", fmt.Sprintf("%q is no absolute path", dir)
		}
	}
	return "", ""
}
