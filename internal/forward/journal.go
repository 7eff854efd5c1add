package forward

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// journalSocket is where journald listens (systemd-journald.service(8)).
const journalSocket = "/run/systemd/journal/socket"

// journal sends by journald's own protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL): a datagram of fields, or a sealed file that holds them where they are too many.
type journal struct {
	conn  *net.UnixConn
	fixed []byte
}

func dialJournal(c *config) (Target, error) { return dialJournalAt(journalSocket, c) }

func dialJournalAt(path string, c *config) (Target, error) {
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("journald does not listen at %s: %w: does systemd run here?", path, err)
	}
	fields := map[string]string{"CONTAINER_ID": c.about.ID(), "CONTAINER_ID_FULL": c.about.FullID, "CONTAINER_NAME": c.about.Name, "CONTAINER_TAG": c.tag,
		"IMAGE_NAME": c.about.ImageName, "SYSLOG_IDENTIFIER": c.tag}
	for k, v := range c.extra {
		if name := fieldName(k); name != "" && fields[name] == "" {
			fields[name] = v
		}
	}
	var b bytes.Buffer
	for _, k := range slices.Sorted(maps.Keys(fields)) {
		field(&b, k, fields[k])
	}
	return &journal{conn, b.Bytes()}, nil
}

// fieldName is a name as journald takes it: of letters, digits and underscores, of which none is the first.
func fieldName(s string) string {
	name := strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return '_'
	}, strings.ToUpper(s))
	return strings.TrimLeft(name, "_0123456789")
}

// field appends one, with its length before it where it has line breaks.
func field(b *bytes.Buffer, name, value string) {
	b.WriteString(name)
	if strings.ContainsRune(value, '\n') {
		b.WriteByte('\n')
		_ = binary.Write(b, binary.LittleEndian, uint64(len(value)))
	} else {
		b.WriteByte('=')
	}
	b.WriteString(value)
	b.WriteByte('\n')
}

func (j *journal) Send(m *Message) error {
	var b bytes.Buffer
	b.Write(j.fixed)
	field(&b, "MESSAGE", string(m.Text))
	field(&b, "PRIORITY", fmt.Sprint(m.severity()))
	field(&b, "SYSLOG_TIMESTAMP", m.Time.Format(time.RFC3339Nano))
	if p := m.Partial; p != nil {
		field(&b, "CONTAINER_PARTIAL_ID", p.ID)
		field(&b, "CONTAINER_PARTIAL_ORDINAL", fmt.Sprint(p.Ordinal))
		field(&b, "CONTAINER_PARTIAL_LAST", fmt.Sprint(p.Last))
		if !p.Last {
			field(&b, "CONTAINER_PARTIAL_MESSAGE", "true")
		}
	}
	_ = j.conn.SetWriteDeadline(time.Now().Add(patience))
	_, err := j.conn.Write(b.Bytes())
	if errors.Is(err, unix.EMSGSIZE) || errors.Is(err, unix.ENOBUFS) {
		err = j.byFile(b.Bytes())
	}
	return err
}

// byFile sends fields in a file that nobody can change any more.
func (j *journal) byFile(fields []byte) error {
	fd, err := unix.MemfdCreate("journal", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return fmt.Errorf("make a file in memory: %w", err)
	}
	defer unix.Close(fd)
	for rest := fields; len(rest) > 0; {
		n, err := unix.Write(fd, rest)
		if err != nil {
			return fmt.Errorf("fill a file in memory: %w", err)
		}
		rest = rest[n:]
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE|unix.F_SEAL_SEAL); err != nil {
		return fmt.Errorf("seal a file in memory: %w", err)
	}
	raw, err := j.conn.SyscallConn()
	if err != nil {
		return err
	}
	var sent error
	err = raw.Write(func(socket uintptr) bool {
		sent = unix.Sendmsg(int(socket), nil, unix.UnixRights(fd), nil, unix.MSG_NOSIGNAL)
		return sent != unix.EAGAIN
	})
	return errors.Join(err, sent)
}

func (j *journal) Close() error { return j.conn.Close() }
