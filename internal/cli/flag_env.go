package cli

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/moby/moby/api/types/container"

	"wherry.dev/wherry/internal/login"
)

// envFlag collects variables: as checkEnv takes them, or NAME* for all of this process's that begin so.
type envFlag struct{ listFlag }

func (e *envFlag) Set(s string) error {
	if prefix, ok := strings.CutSuffix(s, "*"); ok && !strings.Contains(s, "=") {
		for _, v := range os.Environ() {
			if strings.HasPrefix(v, prefix) && v[0] != '=' {
				e.values = append(e.values, v)
			}
		}
		return nil
	}
	s, err := checkEnv(s)
	if err == nil {
		e.values = append(e.values, s)
	}
	return err
}

// addProxies gives a container the proxies of config.json that are for this engine, and that its variables do not name themselves.
func addProxies(app *App, config *container.Config) {
	file, err := login.Read(app.Config)
	if err != nil {
		return
	}
	host := ""
	if c, err := app.Client(); err == nil {
		host = c.Host()
	}
	vars := file.Proxies(host)
	for _, name := range sorted(vars) {
		if !slices.ContainsFunc(config.Env, func(v string) bool { return v == name || strings.HasPrefix(v, name+"=") }) {
			config.Env = append(config.Env, name+"="+vars[name])
		}
	}
}

// checkEnv takes NAME=value; a name alone gets this process's value, and where there is none, stays alone: the engine then takes the
// image's variable away.
func checkEnv(s string) (string, error) {
	name, _, has := strings.Cut(s, "=")
	if name == "" {
		return "", errors.New("the variable has no name: write NAME=value")
	}
	if !has {
		if value, ok := os.LookupEnv(name); ok {
			return name + "=" + value, nil
		}
	}
	return s, nil
}

func checkLabel(s string) (string, error) {
	if name, _, _ := strings.Cut(s, "="); name == "" {
		return "", errors.New("the label has no name: write NAME=value")
	}
	return s, nil
}

// readEnvFiles gives the variables of --env-file: lines NAME=value, names alone that take this process's value if it has one, # comments.
func readEnvFiles(files []string) (all []string, err error) {
	for _, file := range files {
		err := eachLine("--env-file", file, func(line string) error {
			name, value, has := strings.Cut(line, "=")
			if strings.ContainsFunc(name, unicode.IsSpace) {
				return fmt.Errorf("the name %q has a space in it", name)
			}
			if name == "" {
				return errors.New("the variable has no name")
			}
			if !has {
				if value, has = os.LookupEnv(name); !has {
					return nil
				}
			}
			all = append(all, name+"="+value)
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

// readLabelFiles gives the labels of --label-file.
func readLabelFiles(files []string) (all []string, err error) {
	for _, file := range files {
		err := eachLine("--label-file", file, func(line string) error {
			name, _, has := strings.Cut(line, "=")
			if name == "" || strings.ContainsFunc(name, unicode.IsSpace) {
				return fmt.Errorf("%q is no name of a label", name)
			}
			if !has {
				return nil // as Docker: in files a name alone means a variable of the environment, which labels do not take
			}
			all = append(all, line)
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

func eachLine(flag, file string, do func(string) error) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("%s: %w", flag, err)
	}
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	lines := bufio.NewScanner(bytes.NewReader(data))
	lines.Buffer(nil, 1<<20)
	for n := 1; lines.Scan(); n++ {
		if !utf8.Valid(lines.Bytes()) {
			return fmt.Errorf("%s %s, line %d: it is not text in UTF-8", flag, file, n)
		}
		line := strings.TrimLeftFunc(lines.Text(), unicode.IsSpace)
		if line == "" || line[0] == '#' {
			continue
		}
		if err := do(line); err != nil {
			return fmt.Errorf("%s %s, line %d: %w", flag, file, n, err)
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("%s %s: %w", flag, file, err)
	}
	return nil
}
