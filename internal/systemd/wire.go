package systemd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
)

// The wire format of D-Bus (dbus.freedesktop.org, "Message Format"), as far as this package speaks it: little-endian messages whose bodies
// have strings, numbers, booleans, arrays of those, and properties (a name with a variant).

// Kinds of messages.
const (
	kindCall   = 1
	kindReply  = 2
	kindError  = 3
	kindSignal = 4
)

// Fields of a header.
const (
	fieldPath        = 1
	fieldInterface   = 2
	fieldMember      = 3
	fieldError       = 4
	fieldReply       = 5
	fieldDestination = 6
	fieldSignature   = 8
)

// maxMessage bounds what is read: answers of the service manager to us are some hundred bytes.
const maxMessage = 1 << 20

var errForm = errors.New("a message of the bus is damaged or of a form that is not expected")

// message is what came in.
type message struct {
	kind      byte
	serial    uint32
	reply     uint32 // the call that it answers
	member    string
	errorName string
	signature string
	body      []byte
}

// encoder appends values with the alignment that D-Bus wants, counted from the beginning of the header or of the body.
type encoder struct {
	b   []byte
	err error
}

func (e *encoder) align(n int) {
	for len(e.b)%n != 0 {
		e.b = append(e.b, 0)
	}
}

func (e *encoder) byte(v byte) { e.b = append(e.b, v) }

func (e *encoder) uint32(v uint32) {
	e.align(4)
	e.b = binary.LittleEndian.AppendUint32(e.b, v)
}

func (e *encoder) uint64(v uint64) {
	e.align(8)
	e.b = binary.LittleEndian.AppendUint64(e.b, v)
}

func (e *encoder) string(s string) {
	if strings.ContainsRune(s, 0) || len(s) > maxMessage {
		e.err = fmt.Errorf("%.40q cannot be sent: it is too long or has a zero byte", s)
		s = ""
	}
	e.uint32(uint32(len(s)))
	e.b = append(append(e.b, s...), 0)
}

func (e *encoder) signature(s string) { e.b = append(append(append(e.b, byte(len(s))), s...), 0) }

// array writes the length of what each writes behind it, without the padding before the first element.
func (e *encoder) array(alignment int, each func()) {
	e.uint32(0)
	at := len(e.b) - 4
	e.align(alignment)
	from := len(e.b)
	each()
	binary.LittleEndian.PutUint32(e.b[at:], uint32(len(e.b)-from))
}

// variant writes a value with its type.
func (e *encoder) variant(value any) {
	switch v := value.(type) {
	case string:
		e.signature("s")
		e.string(v)
	case bool:
		e.signature("b")
		e.bool(v)
	case int32:
		e.signature("i")
		e.uint32(uint32(v))
	case uint32:
		e.signature("u")
		e.uint32(v)
	case uint64:
		e.signature("t")
		e.uint64(v)
	case []byte:
		e.signature("ay")
		e.array(1, func() { e.b = append(e.b, v...) })
	case []uint32:
		e.signature("au")
		e.array(4, func() {
			for _, n := range v {
				e.uint32(n)
			}
		})
	case []string:
		e.signature("as")
		e.array(4, func() {
			for _, s := range v {
				e.string(s)
			}
		})
	default:
		e.err = fmt.Errorf("a value of type %T cannot be sent", value)
	}
}

func (e *encoder) bool(v bool) {
	n := uint32(0)
	if v {
		n = 1
	}
	e.uint32(n)
}

// properties writes an array of names with values, a(sv).
func (e *encoder) properties(list []Property) {
	e.array(8, func() {
		for _, p := range list {
			e.align(8)
			e.string(p.Name)
			e.variant(p.Value)
		}
	})
}

// call is a method call: where it goes, and its arguments.
type call struct {
	destination, path, iface, member string
	signature                        string
	body                             encoder
}

// encode makes the message. A connection to the manager itself has no destinations.
func (c *call) encode(serial uint32, bus bool) ([]byte, error) {
	var e encoder
	e.b = append(e.b, 'l', kindCall, 0, 1)
	e.uint32(uint32(len(c.body.b)))
	e.uint32(serial)
	e.array(8, func() {
		text := func(field byte, kind, value string) {
			e.align(8)
			e.byte(field)
			e.signature(kind)
			if kind == "g" {
				e.signature(value)
			} else {
				e.string(value)
			}
		}
		text(fieldPath, "o", c.path)
		text(fieldInterface, "s", c.iface)
		text(fieldMember, "s", c.member)
		if bus {
			text(fieldDestination, "s", c.destination)
		}
		if c.signature != "" {
			text(fieldSignature, "g", c.signature)
		}
	})
	e.align(8)
	return append(e.b, c.body.b...), errors.Join(e.err, c.body.err)
}

// decoder reads values; after the first that is not there all are zero, and err says so.
type decoder struct {
	b   []byte
	at  int
	err error
}

func (d *decoder) take(n int) []byte {
	if d.err != nil || n < 0 || n > len(d.b)-d.at {
		d.err = errForm
		return nil
	}
	d.at += n
	return d.b[d.at-n : d.at]
}

func (d *decoder) align(n int) { d.take((n - d.at%n) % n) }

func (d *decoder) byte() byte {
	if b := d.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (d *decoder) uint32() uint32 {
	d.align(4)
	if b := d.take(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

func (d *decoder) string() string {
	n := d.uint32()
	if n > math.MaxInt32 {
		d.err = errForm
	}
	s := string(d.take(int(n)))
	d.take(1)
	return s
}

func (d *decoder) signature() string {
	s := string(d.take(int(d.byte())))
	d.take(1)
	return s
}

// variant reads a value of a type that headers and the answers of this package's calls have.
func (d *decoder) variant() (text string, number uint32) {
	switch d.signature() {
	case "s", "o":
		return d.string(), 0
	case "g":
		return d.signature(), 0
	case "u", "b", "i":
		return "", d.uint32()
	}
	d.err = errForm
	return "", 0
}

// readMessage reads one message.
func readMessage(r io.Reader) (*message, error) {
	head := make([]byte, 16)
	if _, err := io.ReadFull(r, head); err != nil {
		return nil, err
	}
	d := &decoder{b: head, at: 4}
	body, serial, fields := d.uint32(), d.uint32(), d.uint32()
	if head[0] != 'l' || head[3] != 1 || body > maxMessage || fields > maxMessage {
		return nil, errForm
	}
	rest := make([]byte, int(fields+7)&^7+int(body))
	if _, err := io.ReadFull(r, rest); err != nil {
		return nil, err
	}
	m := &message{kind: head[1], serial: serial, body: rest[len(rest)-int(body):]}
	return m, m.readFields(&decoder{b: rest[:fields]})
}

func (m *message) readFields(d *decoder) error {
	for d.at < len(d.b) && d.err == nil {
		d.align(8)
		field := d.byte()
		text, number := d.variant()
		switch field {
		case fieldMember:
			m.member = text
		case fieldError:
			m.errorName = text
		case fieldReply:
			m.reply = number
		case fieldSignature:
			m.signature = text
		}
	}
	return d.err
}

// arguments decodes a body of strings and numbers; it must have at least the types that are wanted.
func (m *message) arguments(want string) ([]string, error) {
	if !strings.HasPrefix(m.signature, want) {
		return nil, errForm
	}
	d, list := &decoder{b: m.body}, make([]string, 0, len(want))
	for _, kind := range want {
		switch kind {
		case 's', 'o':
			list = append(list, d.string())
		case 'u':
			d.uint32()
			list = append(list, "")
		case 'v':
			text, _ := d.variant()
			list = append(list, text)
		}
	}
	return list, d.err
}
