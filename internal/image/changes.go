package image

import (
	"encoding/json"
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"

	"wherry.dev/wherry/internal/spec"
)

// changes carries out the Dockerfile instructions that commit and import take (docker commit -c).
type changes struct {
	c      *dockerspec.DockerOCIImageConfig
	hasCmd bool // one of them is CMD: ENTRYPOINT leaves it alone
}

// applyChanges changes c; each of the list may have several lines.
func applyChanges(c *dockerspec.DockerOCIImageConfig, list []string) error {
	a := changes{c: c}
	var lines [][2]string
	for _, change := range list {
		for line := range strings.Lines(change) {
			line = strings.TrimSpace(line)
			if line == "" || line[0] == '#' {
				continue
			}
			word, rest := line, ""
			if i := strings.IndexAny(line, " \t"); i > 0 {
				word, rest = line[:i], strings.TrimSpace(line[i:])
			}
			word = strings.ToUpper(word)
			a.hasCmd = a.hasCmd || word == "CMD"
			lines = append(lines, [2]string{word, rest})
		}
	}
	for _, line := range lines {
		if line[1] == "" {
			return badChange("%s needs an argument", line[0])
		}
		if err := a.apply(line[0], line[1]); err != nil {
			return err
		}
	}
	return nil
}

func badChange(format string, args ...any) error {
	return fmt.Errorf("change: %s: %w", fmt.Sprintf(format, args...), errdefs.ErrInvalidArgument)
}

// setEnv gives a variable a value, in its place where it has one.
func setEnv(env []string, key, value string) []string {
	env = slices.Clone(env)
	if at := slices.IndexFunc(env, func(kv string) bool { return strings.HasPrefix(kv, key+"=") }); at >= 0 {
		env[at] = key + "=" + value
		return env
	}
	return append(env, key+"="+value)
}

func (a *changes) apply(word, rest string) (err error) {
	c := a.c
	switch word {
	case "CMD":
		c.Cmd = a.command(rest)
	case "ENTRYPOINT":
		c.Entrypoint = a.command(rest)
		if !a.hasCmd { // it was meant for another program
			c.Cmd = nil
		}
	case "ENV":
		err = a.pairs(word, rest, func(key, value string) {
			c.Env = setEnv(c.Env, key, value)
		})
	case "LABEL":
		c.Labels = clone(c.Labels)
		err = a.pairs(word, rest, func(key, value string) { c.Labels[key] = value })
	case "USER":
		c.User, err = a.word(word, rest)
	case "STOPSIGNAL":
		if c.StopSignal, err = a.word(word, rest); err == nil {
			_, err = spec.ParseSignal(c.StopSignal)
		}
	case "WORKDIR":
		var dir string
		if dir, err = a.word(word, rest); err == nil {
			c.WorkingDir = absolute(c.WorkingDir, dir)
		}
	case "EXPOSE":
		err = a.expose(rest)
	case "VOLUME":
		err = a.volumes(rest)
	case "ONBUILD":
		err = a.onBuild(rest)
	case "HEALTHCHECK":
		err = a.health(rest)
	default:
		return badChange("%s is not a valid change command: there are CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME, WORKDIR", word)
	}
	return err
}

func clone[V any](m map[string]V) map[string]V {
	out := make(map[string]V, len(m)+1)
	for k, v := range m {
		out[k] = v
	}
	return out
}

func absolute(base, dir string) string {
	if strings.HasPrefix(dir, "/") {
		return path.Clean(dir)
	}
	return path.Join("/", base, dir)
}

// command reads ["a", "b"], or a line for the shell.
func (a *changes) command(s string) []string {
	var list []string
	if json.Unmarshal([]byte(s), &list) == nil {
		return list
	}
	shell := a.c.Shell
	if len(shell) == 0 {
		shell = []string{"/bin/sh", "-c"}
	}
	return append(slices.Clone(shell), s)
}

// pairs reads KEY=VALUE …, or the old form KEY VALUE with everything after the key as its value.
func (a *changes) pairs(word, rest string, set func(key, value string)) error {
	if first, value, _ := strings.Cut(rest, " "); !strings.Contains(first, "=") {
		if value = strings.TrimSpace(value); value == "" {
			return badChange("%s %s: write KEY=VALUE", word, first)
		}
		set(first, value)
		return nil
	}
	words, err := a.words(rest)
	if err != nil {
		return badChange("%s: %v", word, err)
	}
	for _, w := range words {
		key, value, ok := strings.Cut(w, "=")
		if !ok || key == "" {
			return badChange("%s %s: write KEY=VALUE", word, w)
		}
		set(key, value)
	}
	return nil
}

// word reads an argument that is one word, quoted or not.
func (a *changes) word(word, rest string) (string, error) {
	words, err := a.words(rest)
	if err != nil {
		return "", badChange("%s: %v", word, err)
	}
	if len(words) != 1 {
		return "", badChange("%s takes one argument, not %d", word, len(words))
	}
	return words[0], nil
}

// list reads ["a", "b"], or words.
func (a *changes) list(rest string) ([]string, error) {
	var list []string
	if json.Unmarshal([]byte(rest), &list) == nil {
		return list, nil
	}
	return a.words(rest)
}

func (a *changes) volumes(rest string) error {
	list, err := a.list(rest)
	if err != nil {
		return badChange("VOLUME: %v", err)
	}
	a.c.Volumes = clone(a.c.Volumes)
	for _, v := range list {
		if v == "" {
			return badChange("VOLUME has an empty path")
		}
		a.c.Volumes[v] = struct{}{}
	}
	return nil
}

// expose reads PORT[-PORT][/PROTOCOL] ….
func (a *changes) expose(rest string) error {
	words, err := a.words(rest)
	if err != nil {
		return badChange("EXPOSE: %v", err)
	}
	a.c.ExposedPorts = clone(a.c.ExposedPorts)
	for _, w := range words {
		ports, protocol, ok := strings.Cut(w, "/")
		if protocol = strings.ToLower(protocol); !ok {
			protocol = "tcp"
		}
		first, last, isRange := strings.Cut(ports, "-")
		if !isRange {
			last = first
		}
		from, err1 := strconv.ParseUint(first, 10, 16)
		to, err2 := strconv.ParseUint(last, 10, 16)
		if err1 != nil || err2 != nil || from > to || !slices.Contains([]string{"tcp", "udp", "sctp"}, protocol) {
			return badChange("EXPOSE %s: write PORT[-PORT][/tcp|udp|sctp]", w)
		}
		for p := from; p <= to; p++ {
			a.c.ExposedPorts[strconv.FormatUint(p, 10)+"/"+protocol] = struct{}{}
		}
	}
	return nil
}

func (a *changes) onBuild(rest string) error {
	trigger, _, _ := strings.Cut(rest, " ")
	switch strings.ToUpper(trigger) {
	case "ONBUILD", "FROM", "MAINTAINER":
		return badChange("%s isn't allowed as an ONBUILD trigger", strings.ToUpper(trigger))
	}
	a.c.OnBuild = append(slices.Clone(a.c.OnBuild), rest)
	return nil
}

// health reads NONE, or [--interval=…] [--timeout=…] [--start-period=…] [--start-interval=…] [--retries=…] CMD command.
func (a *changes) health(rest string) error {
	var h dockerspec.HealthcheckConfig
	for strings.HasPrefix(rest, "--") {
		flag, more, _ := strings.Cut(rest, " ")
		rest = strings.TrimSpace(more)
		key, value, _ := strings.Cut(strings.TrimPrefix(flag, "--"), "=")
		var err error
		switch key {
		case "interval":
			h.Interval, err = period(value)
		case "timeout":
			h.Timeout, err = period(value)
		case "start-period":
			h.StartPeriod, err = period(value)
		case "start-interval":
			h.StartInterval, err = period(value)
		case "retries":
			if h.Retries, err = strconv.Atoi(value); err == nil && h.Retries < 0 {
				err = strconv.ErrRange
			}
		default:
			return badChange("HEALTHCHECK: unknown flag --%s", key)
		}
		if err != nil {
			return badChange("HEALTHCHECK: --%s=%s: %v", key, value, err)
		}
	}
	kind, command, _ := strings.Cut(rest, " ")
	command = strings.TrimSpace(command)
	var list []string
	switch {
	case strings.EqualFold(kind, "NONE") && command == "":
		h = dockerspec.HealthcheckConfig{Test: []string{"NONE"}}
	case !strings.EqualFold(kind, "CMD") || command == "":
		return badChange("HEALTHCHECK: write NONE, or CMD and a command")
	case json.Unmarshal([]byte(command), &list) == nil:
		h.Test = append([]string{"CMD"}, list...)
	default:
		h.Test = []string{"CMD-SHELL", command}
	}
	a.c.Healthcheck = &h
	return nil
}

func period(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err == nil && d != 0 && d < time.Millisecond {
		err = fmt.Errorf("it is less than a millisecond")
	}
	return d, err
}

// words splits at spaces that stand in no quotes, takes quotes and backslashes away, and fills in $NAME and ${NAME} from the variables
// that the image has.
func (a *changes) words(s string) ([]string, error) {
	var out []string
	var b strings.Builder
	in, quote := false, byte(0)
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '\\' && quote != '\'' && i+1 < len(s) && (quote == 0 || strings.IndexByte("\"$\\", s[i+1]) >= 0):
			i++
			b.WriteByte(s[i])
			in = true
		case quote == 0 && (c == '"' || c == '\''):
			quote, in = c, true
		case c == quote && quote != 0:
			quote = 0
		case quote == 0 && (c == ' ' || c == '\t'):
			if in {
				out = append(out, b.String())
			}
			b.Reset()
			in = false
		case c == '$' && quote != '\'':
			n, value := a.variable(s[i:])
			b.WriteString(value)
			i += n - 1
			in = true
		default:
			b.WriteByte(c)
			in = true
		}
	}
	if quote != 0 {
		return nil, fmt.Errorf("a quote (%c) is not closed", quote)
	}
	if in {
		out = append(out, b.String())
	}
	return out, nil
}

// variable reads $NAME or ${NAME} at the beginning of s: how long it is, and its value. A lone $ is one.
func (a *changes) variable(s string) (int, string) {
	end := 1
	for end < len(s) && (s[end] == '_' || s[end]|0x20 >= 'a' && s[end]|0x20 <= 'z' || end > 1 && s[end] >= '0' && s[end] <= '9') {
		end++
	}
	if end == 1 && strings.HasPrefix(s, "${") {
		if close := strings.IndexByte(s, '}'); close > 0 {
			end = close + 1
		}
	}
	if end == 1 {
		return 1, "$"
	}
	return end, os.Expand(s[:end], func(name string) string {
		for _, kv := range a.c.Env {
			if value, ok := strings.CutPrefix(kv, name+"="); ok {
				return value
			}
		}
		return ""
	})
}
