package forward

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"
)

// facilities of RFC 5424, section 6.2.1.
const facilities = " kern user mail daemon auth syslog lpr news uucp cron authpriv ftp ntp audit alert clock local0 local1 local2 local3 local4 local5 local6 local7 "

// syslog sends to a server of syslog's, in one of four forms.
type syslog struct {
	conn     net.Conn
	form     string
	framed   bool // each message's length goes before it (RFC 6587): it may have line breaks
	stream   bool
	local    bool
	facility int
	tag      string
	host     string
}

// syslogOptions are what a configuration says.
type syslogOptions struct {
	scheme, address string
	facility        int
	form            string
}

func readSyslog(c *config) (o syslogOptions, err error) {
	facility := cmp.Or(c.options["syslog-facility"], "daemon")
	if n, err := strconv.Atoi(facility); err == nil && n >= 0 && n <= 23 {
		o.facility = n
	} else if at := strings.Index(facilities, " "+facility+" "); at >= 0 && !strings.Contains(facility, " ") {
		o.facility = strings.Count(facilities[:at], " ")
	} else {
		return o, wrong("syslog-facility=%s: there are %s, and their numbers", facility, strings.TrimSpace(facilities))
	}
	switch o.form = c.options["syslog-format"]; o.form {
	case "", "rfc3164", "rfc5424", "rfc5424micro":
	default:
		return o, wrong("syslog-format=%s: it can be rfc3164, rfc5424 or rfc5424micro", o.form)
	}
	text := c.options["syslog-address"]
	if text == "" {
		return o, nil
	}
	u, err := url.Parse(text)
	if err != nil {
		return o, wrong("syslog-address=%s: %v", text, err)
	}
	switch o.scheme = u.Scheme; o.scheme {
	case "unix", "unixgram":
		o.address = u.Path
	case "udp", "tcp", "tcp+tls":
		if o.address = u.Host; u.Port() == "" {
			o.address = net.JoinHostPort(u.Hostname(), "514")
		}
	default:
		return o, wrong("syslog-address=%s: it begins with udp://, tcp://, tcp+tls://, unix:// or unixgram://", text)
	}
	return o, nil
}

func checkSyslog(c *config) error {
	o, err := readSyslog(c)
	if err == nil && o.scheme == "tcp+tls" {
		_, err = syslogTLS(c)
	}
	return err
}

// syslogTLS is what a connection by TLS wants.
func syslogTLS(c *config) (*tls.Config, error) {
	out := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: c.options["syslog-tls-skip-verify"] != ""}
	if path := c.options["syslog-tls-ca-cert"]; path != "" {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, wrong("syslog-tls-ca-cert=%s: %v", path, err)
		}
		if out.RootCAs = x509.NewCertPool(); !out.RootCAs.AppendCertsFromPEM(text) {
			return nil, wrong("syslog-tls-ca-cert=%s: it has no certificate", path)
		}
	}
	if cert, key := c.options["syslog-tls-cert"], c.options["syslog-tls-key"]; cert != "" || key != "" {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return nil, wrong("syslog-tls-cert=%s: %v", cert, err)
		}
		out.Certificates = []tls.Certificate{pair}
	}
	return out, nil
}

func dialSyslog(c *config) (Target, error) {
	o, err := readSyslog(c)
	if err != nil {
		return nil, err
	}
	s := &syslog{form: o.form, facility: o.facility, tag: c.tag}
	if s.host, err = os.Hostname(); err != nil {
		return nil, err
	}
	d := &net.Dialer{Timeout: patience}
	switch o.scheme {
	case "":
		s.local = true
		for _, path := range []string{"/dev/log", "/var/run/syslog", "/var/run/log"} {
			for _, network := range []string{"unixgram", "unix"} {
				if s.conn, err = d.Dial(network, path); err == nil {
					s.stream = network == "unix"
					return s, nil
				}
			}
		}
		return nil, errors.New("no syslog listens on this machine (/dev/log): start one, or name it with --log-opt syslog-address=")
	case "tcp+tls":
		config, err := syslogTLS(c)
		if err != nil {
			return nil, err
		}
		s.conn, err = tls.DialWithDialer(d, "tcp", o.address, config)
		if err != nil {
			return nil, fmt.Errorf("connect to %s: %w", o.address, err)
		}
	default:
		if s.conn, err = d.Dial(o.scheme, o.address); err != nil {
			return nil, fmt.Errorf("connect to %s: %w", o.address, err)
		}
	}
	s.stream = o.scheme != "udp" && o.scheme != "unixgram"
	s.framed = s.stream && strings.HasPrefix(o.form, "rfc5424") && o.scheme == "tcp+tls"
	return s, nil
}

// header is what stands before the text.
func (s *syslog) header(m *Message) string {
	priority := s.facility<<3 | m.severity()
	switch {
	case s.form == "rfc5424":
		return fmt.Sprintf("<%d>1 %s %s %s %d %s - ", priority, m.Time.Format(time.RFC3339), s.host, s.tag, os.Getpid(), s.tag)
	case s.form == "rfc5424micro":
		return fmt.Sprintf("<%d>1 %s %s %s %d %s - ", priority, m.Time.Format("2006-01-02T15:04:05.000000Z07:00"), s.host, s.tag, os.Getpid(), s.tag)
	case s.form == "rfc3164":
		return fmt.Sprintf("<%d>%s %s %s[%d]: ", priority, m.Time.Local().Format(time.Stamp), s.host, s.tag, os.Getpid())
	case s.local:
		return fmt.Sprintf("<%d>%s %s[%d]: ", priority, m.Time.Local().Format(time.Stamp), s.tag, os.Getpid())
	}
	return fmt.Sprintf("<%d>%s %s %s[%d]: ", priority, m.Time.Format(time.RFC3339), s.host, s.tag, os.Getpid())
}

func (s *syslog) Send(m *Message) error {
	if len(m.Text) == 0 {
		return nil
	}
	text := append([]byte(s.header(m)), m.Text...)
	switch {
	case s.framed:
		text = append([]byte(strconv.Itoa(len(text))+" "), text...)
	case s.stream:
		text = append(text, '\n')
	}
	if s.stream {
		if err := ended(s.conn); err != nil {
			return err
		}
	}
	_ = s.conn.SetWriteDeadline(time.Now().Add(patience))
	_, err := s.conn.Write(text)
	return err
}

func (s *syslog) Close() error { return s.conn.Close() }
