package cli

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"unicode"
	"unicode/utf8"
)

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
