package cli

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
)

// volumes is what -v asks for: binds as the API writes them, and places for volumes without a name.
type volumes struct {
	binds     []string
	anonymous map[string]struct{}
}

// parseVolumes reads -v [source:]target[:options]. Sources that begin with a dot are relative to this process's directory.
func parseVolumes(list []string) (volumes, error) {
	v := volumes{anonymous: map[string]struct{}{}}
	for _, s := range list {
		if err := v.add(s); err != nil {
			return v, fmt.Errorf("-v %s: %w", s, err)
		}
	}
	return v, nil
}

func (v *volumes) add(s string) error {
	parts := strings.Split(s, ":")
	if s == "" {
		return errors.New("it is empty: write SOURCE:TARGET, such as data:/var/lib/data or ./src:/src:ro")
	}
	if len(parts) > 3 {
		return fmt.Errorf("too many colons: write SOURCE:TARGET:OPTIONS (paths with colons need --mount)")
	}
	for i, p := range parts {
		if p == "" {
			return fmt.Errorf("the %s is empty", [...]string{"source", "place in the container", "list of options"}[i])
		}
	}
	if len(parts) == 1 {
		if !strings.HasPrefix(s, "/") {
			return fmt.Errorf("%s: give an absolute path in the container, or SOURCE:TARGET", s)
		}
		v.anonymous[s] = struct{}{}
		return nil
	}
	source, err := localPath(parts[0])
	if err != nil {
		return err
	}
	if !strings.HasPrefix(parts[1], "/") {
		return fmt.Errorf("the place in the container, %s, must be an absolute path", parts[1])
	}
	parts[0] = source
	v.binds = append(v.binds, strings.Join(parts, ":"))
	return nil
}

// localPath makes ., .., ./x and ../x absolute; other words without a slash are names of volumes.
func localPath(s string) (string, error) {
	if s != "." && s != ".." && !strings.HasPrefix(s, "./") && !strings.HasPrefix(s, "../") {
		return s, nil
	}
	return filepath.Abs(s)
}
