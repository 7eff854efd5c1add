package forward

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"
)

// The bounds of GELF over UDP (go2docs.graylog.org, "GELF via UDP").
const (
	gelfChunk  = 1420
	gelfChunks = 128
)

// gelf sends JSON documents: over TCP with a zero byte behind each, over UDP compressed and in chunks.
type gelf struct {
	conn        net.Conn
	udp         bool
	compression string
	level       int
	fixed       map[string]any
}

func readGELF(c *config) (u *url.URL, level int, err error) {
	text := c.options["gelf-address"]
	if text == "" {
		return nil, 0, wrong("gelf-address: it is needed: write udp://HOST:PORT or tcp://HOST:PORT")
	}
	u, err = url.Parse(text)
	if err != nil || u.Scheme != "udp" && u.Scheme != "tcp" || u.Port() == "" {
		return nil, 0, wrong("gelf-address=%s: write udp://HOST:PORT or tcp://HOST:PORT", text)
	}
	level = 1
	for name, only := range map[string]string{"gelf-compression-level": "udp", "gelf-compression-type": "udp", "gelf-tcp-max-reconnect": "tcp", "gelf-tcp-reconnect-delay": "tcp"} {
		value, ok := c.options[name]
		if !ok {
			continue
		}
		if u.Scheme != only {
			return nil, 0, wrong("%s=%s: it is for %s only", name, value, strings.ToUpper(only))
		}
		n, err := strconv.Atoi(value)
		switch {
		case name == "gelf-compression-type":
			if value != "gzip" && value != "zlib" && value != "none" {
				return nil, 0, wrong("%s=%s: it can be gzip, zlib or none", name, value)
			}
		case name == "gelf-compression-level":
			if err != nil || n < -1 || n > 9 {
				return nil, 0, wrong("%s=%s: it is a number from -1 to 9", name, value)
			}
			level = n
		case err != nil || n < 0:
			return nil, 0, wrong("%s=%s: it is a number from 0 on", name, value)
		}
	}
	return u, level, nil
}

func checkGELF(c *config) error {
	_, _, err := readGELF(c)
	return err
}

func dialGELF(c *config) (Target, error) {
	u, level, err := readGELF(c)
	if err != nil {
		return nil, err
	}
	host, err := os.Hostname()
	if err != nil {
		return nil, err
	}
	g := &gelf{udp: u.Scheme == "udp", compression: c.options["gelf-compression-type"], level: level, fixed: map[string]any{
		"version": "1.1", "host": host, "_container_id": c.about.FullID, "_container_name": c.about.Name, "_image_id": c.about.ImageFullID, "_image_name": c.about.ImageName,
		"_command": c.about.Command, "_tag": c.tag, "_created": c.about.Created,
	}}
	for k, v := range c.extra {
		g.fixed["_"+strings.TrimPrefix(k, "_")] = v
	}
	if g.conn, err = net.DialTimeout(u.Scheme, u.Host, patience); err != nil {
		return nil, fmt.Errorf("connect to %s: %w", u.Host, err)
	}
	return g, nil
}

func (g *gelf) Send(m *Message) error {
	if len(m.Text) == 0 {
		return nil
	}
	g.fixed["short_message"], g.fixed["level"] = string(m.Text), m.severity()
	g.fixed["timestamp"] = json.Number(fmt.Sprintf("%d.%03d", m.Time.Unix(), m.Time.Nanosecond()/1e6))
	text, err := json.Marshal(g.fixed)
	if err != nil {
		return err
	}
	_ = g.conn.SetWriteDeadline(time.Now().Add(patience))
	if !g.udp {
		if err := ended(g.conn); err != nil {
			return err
		}
		_, err := g.conn.Write(append(text, 0))
		return err
	}
	if text, err = g.compress(text); err != nil {
		return err
	}
	return g.chunks(text)
}

func (g *gelf) compress(text []byte) ([]byte, error) {
	var b bytes.Buffer
	var w io.WriteCloser
	var err error
	switch g.compression {
	case "none":
		return text, nil
	case "zlib":
		w, err = zlib.NewWriterLevel(&b, g.level)
	default:
		w, err = gzip.NewWriterLevel(&b, g.level)
	}
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(text); err != nil {
		return nil, err
	}
	err = w.Close()
	return b.Bytes(), err
}

// chunks sends what fits into one datagram as it is.
func (g *gelf) chunks(text []byte) error {
	if len(text) <= gelfChunk {
		_, err := g.conn.Write(text)
		return err
	}
	const head = 12
	n := (len(text) + gelfChunk - head - 1) / (gelfChunk - head)
	if n > gelfChunks {
		return nil // no server takes it
	}
	chunk := make([]byte, head, gelfChunk)
	chunk[0], chunk[1], chunk[11] = 0x1e, 0x0f, byte(n)
	_, _ = rand.Read(chunk[2:10]) // never fails
	for i := range n {
		chunk[10] = byte(i)
		part := text[i*(gelfChunk-head) : min((i+1)*(gelfChunk-head), len(text))]
		if _, err := g.conn.Write(append(chunk[:head], part...)); err != nil {
			return err
		}
	}
	return nil
}

func (g *gelf) Close() error { return g.conn.Close() }
