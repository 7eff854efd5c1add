package settings

import (
	"fmt"
	"path/filepath"
	"strconv"
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

// LogLimit is what is kept of a container's output; zero: the default.
type LogLimit struct {
	Size  int64 // of a file, in bytes
	Files int
}

// nonBlocking is the mode in which Docker drops output in place of holding up a container; here nothing holds it up in either.
const nonBlocking = "non-blocking"

// LogLimits reads a log's options. Those of Docker's that mean nothing here are let pass.
func LogLimits(driver string, options map[string]string) (l LogLimit, err error) {
	for name, value := range options {
		switch name {
		case "max-size", "cache-max-size":
			l.Size, err = units.RAMInBytes(value)
			if err != nil || l.Size <= 0 && value != "-1" {
				return l, fmt.Errorf("invalid log opt %s=%s: write a size such as 10m", name, value)
			}
			if l.Size < 0 {
				l.Size = 1 << 50
			}
		case "max-file", "cache-max-file":
			if l.Files, err = strconv.Atoi(value); err != nil || l.Files < 1 {
				return l, fmt.Errorf("invalid log opt %s=%s: a number from 1 is needed", name, value)
			}
		case "mode":
			if value != "" && value != "blocking" && value != nonBlocking {
				return l, fmt.Errorf("invalid log opt mode=%s: it is blocking or %s", value, nonBlocking)
			}
		case "max-buffer-size":
			if n, err := units.RAMInBytes(value); err != nil || n < 0 {
				return l, fmt.Errorf("invalid log opt max-buffer-size=%s: write a size such as 4m", value)
			}
			if options["mode"] != nonBlocking {
				return l, fmt.Errorf("invalid log opt max-buffer-size=%s: it is only for mode=%s", value, nonBlocking)
			}
		case "compress", "cache-compress", "labels", "labels-regex", "env", "env-regex", "tag", "cache-disabled":
		default:
			if strings.HasPrefix(name, driver+"-") { // of a driver that sends it elsewhere, which checks it
				continue
			}
			return l, fmt.Errorf("unknown log opt '%s' for %s log driver", name, driver)
		}
	}
	return l, nil
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
		name, value, ok := strings.Cut(text, "=")
		if !ok || name == "" || value == "" {
			return "containers.log-opts", fmt.Sprintf("%q: write \"max-size=10m\"", text)
		}
	}
	if _, err := LogLimits(c.LogDriver, c.LogOptions()); err != nil {
		return "containers.log-opts", err.Error()
	}
	for _, dir := range c.CDISpecDirs {
		if !filepath.IsAbs(dir) {
			return "containers.cdi-spec-dirs", fmt.Sprintf("%q is no absolute path", dir)
		}
	}
	return "", ""
}
