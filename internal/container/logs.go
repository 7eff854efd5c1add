package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"wherry.dev/wherry/internal/logs"
)

// LogsOptions of Logs; Tail < 0 means all.
type LogsOptions struct {
	Stdout, Stderr, Follow, Timestamps, Details bool
	Since, Until                                time.Time
	Tail                                        int
}

// timestamp is RFC 3339 with all nine digits, as Docker writes it.
const timestamp = "2006-01-02T15:04:05.000000000Z07:00"

// Logs writes what the container has printed. With Follow it goes on until the container ends; one that does not run has ended.
func (s *Service) Logs(ctx context.Context, id string, o LogsOptions, stdout, stderr io.Writer) error {
	c, err := s.index.find(id)
	if err != nil {
		return err
	}
	r := c.record()
	if r.HostConfig.LogConfig.Type == "none" {
		return fail(errdefs.ErrNotImplemented, "configured logging driver does not support reading: container %s was created with --log-driver none", r.Name)
	}
	reading, options := ctx, logs.ReadOptions{}
	follow := o.Follow && r.Status.Alive()
	if follow {
		options.Follow, options.Lives = &s.followers, true
		over, cancel := c.untilOver(ctx)
		defer cancel()
		if !c.record().Status.Alive() { // it has ended meanwhile, and the life after this one is not asked for
			cancel()
		}
		reading = over
		if !o.Until.IsZero() {
			limited, cancel := context.WithDeadline(over, o.Until)
			defer cancel()
			reading = limited
		}
	}
	reader, err := c.openLog(options)
	if err != nil {
		return err
	}
	defer c.closeLog(reader)
	p := &printer{o: o, details: r.logDetails(), to: [logs.Stderr + 1]io.Writer{}}
	if o.Stdout {
		p.to[logs.Stdout] = stdout
	}
	if o.Stderr {
		p.to[logs.Stderr] = stderr
	}
	if o.Tail >= 0 {
		if p.skip, err = reader.Last(o.Tail); err != nil {
			return fmt.Errorf("read the output of container %s: %w", r.Name, err)
		}
	}
	err = p.print(reading, reader)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// openLog begins to read the container's output. What it has not read when the container is removed it can read afterwards.
func (c *Container) openLog(o logs.ReadOptions) (*logs.Reader, error) {
	r := c.record()
	reader, err := logs.Open(r.Log.Dir, o)
	if err != nil {
		return nil, fmt.Errorf("read the output of container %s: %w", r.Name, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.readers[reader] = true
	return reader, nil
}

func (c *Container) closeLog(reader *logs.Reader) {
	c.mu.Lock()
	delete(c.readers, reader)
	c.mu.Unlock()
	reader.Close()
}

// pinOutput has all readers open what is there. Nothing more is written: the container has ended.
func (c *Container) pinOutput() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var errs []error
	for reader := range c.readers {
		errs = append(errs, reader.Pin())
	}
	return errors.Join(errs...)
}

// logDetails are the labels and variables that --log-opt labels=… and env=… want beside each line.
func (r *Record) logDetails() string {
	env := map[string]string{}
	for _, kv := range r.Config.Env {
		k, v, _ := strings.Cut(kv, "=")
		env[k] = v
	}
	var pairs []string
	for option, values := range map[string]map[string]string{"labels": r.Config.Labels, "env": env} {
		for _, key := range strings.Split(r.HostConfig.LogConfig.Config[option], ",") {
			if v, ok := values[key]; ok {
				pairs = append(pairs, url.QueryEscape(key)+"="+url.QueryEscape(v))
			}
		}
	}
	slices.Sort(pairs)
	return strings.Join(pairs, ",")
}

// printer renders a log for one client.
type printer struct {
	o       LogsOptions
	details string
	skip    int // lines before the tail
	to      [logs.Stderr + 1]io.Writer
	lines   logs.Splitter
	pending []byte // lines of one stream, to be written at once
	stream  logs.Stream
}

// print reads to the end, or to the end of ctx and what was there by then.
func (p *printer) print(ctx context.Context, r *logs.Reader) error {
	raw := p.o.Tail < 0 && !p.o.Timestamps && !p.o.Details && p.o.Since.IsZero() && p.o.Until.IsZero()
	for {
		e, err := r.Next(ctx)
		if errors.Is(err, io.EOF) || err != nil && ctx.Err() != nil {
			return p.ended(p.lines.Flush(p.line))
		}
		if err != nil {
			return err
		}
		if raw {
			err = p.write(e.Stream, e.Data)
		} else if err = p.lines.Add(e, p.line); err == nil {
			err = p.flush()
		}
		if err != nil {
			return p.ended(err)
		}
	}
}

// errUntil: a line that is younger than the last one that was asked for.
var errUntil = errors.New("what follows is younger than asked for")

func (p *printer) ended(err error) error {
	if err == nil || errors.Is(err, errUntil) {
		return p.flush()
	}
	return err
}

func (p *printer) line(l logs.Line) error {
	switch {
	case p.skip > 0:
		p.skip--
		return nil
	case !p.o.Since.IsZero() && l.Time.Before(p.o.Since):
		return nil
	case !p.o.Until.IsZero() && l.Time.After(p.o.Until):
		if l.Time.After(time.Now()) { // the clock has been put back since: lines that come after it may be older
			return nil
		}
		return errUntil
	}
	if l.Stream != p.stream {
		if err := p.flush(); err != nil {
			return err
		}
		p.stream = l.Stream
	}
	if p.o.Timestamps {
		p.pending = append(l.Time.UTC().AppendFormat(p.pending, timestamp), ' ')
	}
	if p.o.Details {
		p.pending = append(append(p.pending, p.details...), ' ')
	}
	p.pending = append(p.pending, l.Text...)
	return nil
}

// flush writes the lines that are pending.
func (p *printer) flush() error {
	if len(p.pending) == 0 {
		return nil
	}
	err := p.write(p.stream, p.pending)
	p.pending = p.pending[:0]
	return err
}

func (p *printer) write(stream logs.Stream, text []byte) error {
	w := p.to[stream]
	if w == nil {
		return nil
	}
	_, err := w.Write(text)
	return err
}
