package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// logger says what a command meets: on standard error, or in the file that its caller reads (--log), in the form of runc's lines.
type logger struct {
	file, format string // format is text or json
	debug        bool
}

// check refuses a destination that nothing could be written to.
func (l *logger) check() error {
	if l.format != "text" && l.format != "json" && l.format != "" {
		return fmt.Errorf("invalid log-format: %q is neither text nor json", l.format)
	}
	if l.file == "" {
		return nil
	}
	f, err := l.open()
	if err != nil {
		return fmt.Errorf("the log: %w", err)
	}
	return f.Close()
}

func (l *logger) open() (*os.File, error) {
	return os.OpenFile(l.file, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
}

// fail tells what ended the command, on standard error and in the log.
func (l *logger) fail(err error) {
	text := strings.TrimSpace(err.Error())
	if l.file != "" || l.format != "json" {
		fmt.Fprintf(os.Stderr, "%s: %s\n", programName(), text)
	}
	if l.file != "" || l.format == "json" {
		l.line("error", text)
	}
}

// warn tells of something that did not stop the command. What a container says goes to the same standard error: with a log, it is left
// to that.
func (l *logger) warn(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if l.file == "" && l.format != "json" {
		fmt.Fprintf(os.Stderr, "%s: warning: %s\n", programName(), text)
		return
	}
	l.line("warning", text)
}

// detail tells, where --debug asks for it, what is being done.
func (l *logger) detail(format string, args ...any) {
	if l.debug {
		l.line("debug", fmt.Sprintf(format, args...))
	}
}

// step is a detail that a start tells of itself.
func (l *logger) step(name string) {
	if name != "" {
		l.detail("%s", name)
	}
}

func (l *logger) line(level, text string) {
	out := io.Writer(os.Stderr)
	if l.file != "" {
		f, err := l.open()
		if err != nil {
			return
		}
		defer f.Close()
		out = f
	}
	now := time.Now().Format(time.RFC3339)
	if l.format == "json" {
		_ = json.NewEncoder(out).Encode(map[string]string{"level": level, "msg": text, "time": now})
		return
	}
	fmt.Fprintf(out, "time=%q level=%s msg=%q\n", now, level, text)
}
