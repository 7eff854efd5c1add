// Package forward sends lines of output to where hosts keep logs: journald, syslog, Fluentd, or what takes GELF. Options and forms are those of Docker's
// drivers of the same names. A Target is for one goroutine; it holds a connection and nothing else: what could not be sent is the caller's to send again.
package forward

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"text/template"
	"time"

	"github.com/containerd/errdefs"
)

// MostText is the longest piece of a line that is one message, in bytes; longer ones are cut, as Docker does.
const MostText = 16 << 10

// patience is how long a connection and a message may take.
const patience = 10 * time.Second

// Message is a line, or a piece of one.
type Message struct {
	Time    time.Time
	Stderr  bool
	Text    []byte // without its newline
	Partial *Partial
}

// Partial says which piece of a long line a message is.
type Partial struct {
	ID      string // the same for all pieces
	Ordinal int    // from 1 on
	Last    bool
}

func (m *Message) source() string {
	if m.Stderr {
		return "stderr"
	}
	return "stdout"
}

// severity as syslog has it: what comes by standard error is an error.
func (m *Message) severity() int {
	if m.Stderr {
		return 3
	}
	return 6
}

// Target takes messages. An error of Send means that it has to be made anew, and the message sent again.
type Target interface {
	Send(m *Message) error
	Close() error
}

// About is the container whose output is sent. Its methods and fields are what templates of tags may name.
type About struct {
	FullID, Name, ImageFullID, ImageName, Command string
	Created                                       time.Time
	Labels                                        map[string]string
	Env                                           []string
}

// ID is the short form.
func (a About) ID() string { return a.FullID[:min(12, len(a.FullID))] }

// ImageID is the short form.
func (a About) ImageID() string {
	id := strings.TrimPrefix(a.ImageFullID, "sha256:")
	return id[:min(12, len(id))]
}

// Hostname is the machine's.
func (a About) Hostname() (string, error) { return os.Hostname() }

// DaemonName is what Docker's templates have for the engine.
func (a About) DaemonName() string { return "docker" }

// config is what a driver was asked for.
type config struct {
	kind    string
	options map[string]string
	about   About
	tag     string
	extra   map[string]string // labels and variables to go with each message
}

// kinds are the drivers, with the options that only they have.
func kinds() map[string]kind {
	return map[string]kind{
		"journald": {"", checkNothing, dialJournal},
		"syslog":   {"syslog-address syslog-facility syslog-format syslog-tls-ca-cert syslog-tls-cert syslog-tls-key syslog-tls-skip-verify", checkSyslog, dialSyslog},
		"fluentd": {"fluentd-address fluentd-async fluentd-async-connect fluentd-async-reconnect-interval fluentd-buffer-limit fluentd-max-retries fluentd-request-ack fluentd-retry-wait " +
			"fluentd-sub-second-precision fluentd-write-timeout fluentd-read-timeout", checkFluentd, dialFluentd},
		"gelf": {"gelf-address gelf-compression-level gelf-compression-type gelf-tcp-max-reconnect gelf-tcp-reconnect-delay", checkGELF, dialGELF},
	}
}

type kind struct {
	options string
	check   func(*config) error
	dial    func(*config) (Target, error)
}

func checkNothing(*config) error { return nil }

// Kinds are the names of the drivers.
func Kinds() []string { return []string{"fluentd", "gelf", "journald", "syslog"} }

// Is says that a driver of logs is one of these.
func Is(name string) bool { return slices.Contains(Kinds(), name) }

// own says that an option is one of the driver's own.
func own(name, option string) bool {
	return slices.Contains(strings.Fields(kinds()[name].options), option)
}

// Check says what is wrong with a driver's options.
func Check(name string, options map[string]string) error {
	for option := range options {
		if strings.HasPrefix(option, name+"-") && !own(name, option) {
			return fmt.Errorf("unknown log opt '%s' for %s log driver: there are %s: %w", option, name, kinds()[name].options, errdefs.ErrInvalidArgument)
		}
	}
	c, err := read(name, options, About{FullID: "0123456789abcdef", ImageFullID: "sha256:0123456789abcdef", Created: time.Now()})
	if err == nil {
		err = kinds()[name].check(c)
	}
	if err != nil {
		return fmt.Errorf("log driver %s: %w", name, err)
	}
	return nil
}

// Dial makes a connection for the output of a container.
func Dial(name string, options map[string]string, about About) (Target, error) {
	c, err := read(name, options, about)
	if err != nil {
		return nil, err
	}
	t, err := kinds()[name].dial(c)
	if err != nil {
		return nil, fmt.Errorf("log driver %s: %w", name, err)
	}
	return t, nil
}

// read takes the options that all drivers have.
func read(name string, options map[string]string, about About) (*config, error) {
	c := &config{kind: name, options: options, about: about, extra: map[string]string{}}
	tag, err := template.New("tag").Funcs(template.FuncMap{"json": jsonOf, "join": strings.Join, "lower": strings.ToLower, "upper": strings.ToUpper, "split": strings.Split}).
		Parse(cmp.Or(options["tag"], "{{.ID}}"))
	if err != nil {
		return nil, wrong("tag=%s: %v", options["tag"], err)
	}
	var text strings.Builder
	if err := tag.Execute(&text, about); err != nil {
		return nil, wrong("tag=%s: %v", options["tag"], err)
	}
	c.tag = text.String()
	env := map[string]string{}
	for _, kv := range about.Env {
		if k, v, ok := strings.Cut(kv, "="); ok {
			env[k] = v
		}
	}
	for option, values := range map[string]map[string]string{"labels": about.Labels, "env": env} {
		for key := range strings.SplitSeq(options[option], ",") {
			if v, ok := values[key]; ok {
				c.extra[key] = v
			}
		}
		pattern := options[option+"-regex"]
		if pattern == "" {
			continue
		}
		p, err := regexp.Compile(pattern)
		if err != nil {
			return nil, wrong("%s-regex=%s: %v", option, pattern, err)
		}
		for key, v := range values {
			if p.MatchString(key) {
				c.extra[key] = v
			}
		}
	}
	return c, nil
}

func jsonOf(v any) (string, error) {
	b, err := json.Marshal(v)
	return string(b), err
}

func wrong(format string, args ...any) error {
	return fmt.Errorf("invalid log opt %s: %w", fmt.Sprintf(format, args...), errdefs.ErrInvalidArgument)
}
