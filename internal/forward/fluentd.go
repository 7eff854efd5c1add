package forward

import (
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/fluent/fluent-logger-golang/fluent"
)

// fluentd speaks Fluentd's forward protocol. Each message is sent before the next one is: what is buffered is the container's log on the disk.
type fluentd struct {
	c *config
	f *fluent.Fluent
}

func readFluentd(c *config) (out fluent.Config, err error) {
	out = fluent.Config{FluentNetwork: "tcp", FluentHost: "127.0.0.1", FluentPort: 24224, Timeout: patience, WriteTimeout: patience, ReadTimeout: patience, MaxRetry: 1}
	if text := c.options["fluentd-address"]; text != "" {
		address := text
		if !strings.Contains(text, "://") {
			address = "tcp://" + text
		}
		u, err := url.Parse(address)
		if err != nil {
			return out, wrong("fluentd-address=%s: %v", text, err)
		}
		switch {
		case u.Scheme == "unix" && strings.Trim(u.Path, "/") != "":
			out.FluentNetwork, out.FluentSocketPath = "unix", u.Path
		case (u.Scheme == "tcp" || u.Scheme == "tls") && strings.Trim(u.Path, "/") == "":
			out.FluentNetwork = u.Scheme
			if host := u.Hostname(); host != "" {
				out.FluentHost = host
			}
			if port := u.Port(); port != "" {
				if out.FluentPort, err = net.LookupPort("tcp", port); err != nil {
					return out, wrong("fluentd-address=%s: %v", text, err)
				}
			}
		default:
			return out, wrong("fluentd-address=%s: write tcp://HOST:PORT, tls://HOST:PORT or unix://PATH", text)
		}
	}
	for name, value := range c.options {
		switch name {
		case "fluentd-async", "fluentd-async-connect", "fluentd-request-ack", "fluentd-sub-second-precision":
			yes, err := strconv.ParseBool(value)
			if err != nil {
				return out, wrong("%s=%s: it is true or false", name, value)
			}
			switch name {
			case "fluentd-request-ack":
				out.RequestAck = yes
			case "fluentd-sub-second-precision":
				out.SubSecondPrecision = yes
			}
		case "fluentd-async-reconnect-interval", "fluentd-retry-wait", "fluentd-write-timeout", "fluentd-read-timeout":
			d, err := time.ParseDuration(value)
			if err != nil || d < 0 {
				return out, wrong("%s=%s: write a time such as 1s", name, value)
			}
			switch {
			case d == 0:
			case name == "fluentd-write-timeout":
				out.WriteTimeout = d
			case name == "fluentd-read-timeout":
				out.ReadTimeout = d
			}
		case "fluentd-buffer-limit":
			if _, err := units.RAMInBytes(value); err != nil {
				return out, wrong("%s=%s: write a size such as 1m", name, value)
			}
		case "fluentd-max-retries":
			if _, err := strconv.ParseUint(value, 10, 31); err != nil {
				return out, wrong("%s=%s: it is a number from 0 on", name, value)
			}
		}
	}
	return out, nil
}

func checkFluentd(c *config) error {
	_, err := readFluentd(c)
	return err
}

func dialFluentd(c *config) (Target, error) {
	o, err := readFluentd(c)
	if err != nil {
		return nil, err
	}
	f, err := fluent.New(o)
	if err != nil {
		return nil, err
	}
	return &fluentd{c, f}, nil
}

func (f *fluentd) Send(m *Message) error {
	record := map[string]string{"container_id": f.c.about.FullID, "container_name": "/" + f.c.about.Name, "source": m.source(), "log": string(m.Text)}
	for k, v := range f.c.extra {
		record[k] = v
	}
	if p := m.Partial; p != nil {
		record["partial_message"], record["partial_id"] = "true", p.ID
		record["partial_ordinal"], record["partial_last"] = strconv.Itoa(p.Ordinal), strconv.FormatBool(p.Last)
	}
	return f.f.PostWithTime(f.c.tag, m.Time, record)
}

func (f *fluentd) Close() error { return f.f.Close() }
