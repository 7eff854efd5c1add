package systemd

import (
	"bytes"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
)

// answer makes a message as the bus would send it.
func answer(kind byte, serial, reply uint32, member, signature string, body func(*encoder)) []byte {
	var e, b encoder
	body(&b)
	e.b = append(e.b, 'l', kind, 0, 1)
	e.uint32(uint32(len(b.b)))
	e.uint32(serial)
	e.array(8, func() {
		if reply != 0 {
			e.align(8)
			e.byte(fieldReply)
			e.variant(reply)
		}
		for field, text := range map[byte]string{fieldMember: member, fieldSignature: signature} {
			if text == "" {
				continue
			}
			e.align(8)
			e.byte(field)
			if field == fieldSignature {
				e.signature("g")
				e.signature(text)
			} else {
				e.variant(text)
			}
		}
	})
	e.align(8)
	return append(e.b, b.b...)
}

func jobRemoved() []byte {
	return answer(kindSignal, 7, 0, "JobRemoved", "uoss", func(e *encoder) {
		e.uint32(12)
		e.string("/org/freedesktop/systemd1/job/12")
		e.string("oar-x.scope")
		e.string("done")
	})
}

// The bytes are what busctl(1) sends for this call, field by field as the specification's "Message Format" has them.
func TestCallOnTheWire(t *testing.T) {
	m := toManager("ResetFailedUnit", "s", "a.scope")
	got, err := m.encode(2, true)
	if err != nil {
		t.Fatal(err)
	}
	want := "l\x01\x00\x01\x0c\x00\x00\x00\x02\x00\x00\x00\x9f\x00\x00\x00" +
		"\x01\x01o\x00\x19\x00\x00\x00/org/freedesktop/systemd1\x00\x00\x00\x00\x00\x00\x00" +
		"\x02\x01s\x00\x20\x00\x00\x00org.freedesktop.systemd1.Manager\x00\x00\x00\x00\x00\x00\x00\x00" +
		"\x03\x01s\x00\x0f\x00\x00\x00ResetFailedUnit\x00" +
		"\x06\x01s\x00\x18\x00\x00\x00org.freedesktop.systemd1\x00\x00\x00\x00\x00\x00\x00\x00" +
		"\x08\x01g\x00\x01s\x00\x00" + // the header ends at a multiple of eight
		"\x07\x00\x00\x00a.scope\x00"
	if string(got) != want {
		t.Errorf("\n%q, want\n%q", got, want)
	}
}

func TestSignalOffTheWire(t *testing.T) {
	m, err := readMessage(bytes.NewReader(jobRemoved()))
	if err != nil {
		t.Fatal(err)
	}
	args, err := m.arguments("uoss")
	if err != nil || m.kind != kindSignal || m.member != "JobRemoved" || !reflect.DeepEqual(args, []string{"", "/org/freedesktop/systemd1/job/12", "oar-x.scope", "done"}) {
		t.Errorf("%+v, %q, %v", m, args, err)
	}
	if _, err := m.arguments("s"); !errors.Is(err, errForm) {
		t.Errorf("a string is read where a number is: %v", err)
	}
}

// A message that breaks off or lies about its lengths is refused, and nothing is allocated for what is not there.
func TestDamagedMessages(t *testing.T) {
	whole := jobRemoved()
	for i := range whole {
		if _, err := readMessage(bytes.NewReader(whole[:i])); err == nil {
			t.Errorf("the first %d bytes are taken", i)
		}
	}
	huge := append([]byte{}, whole...)
	huge[7] = 0x7f
	if _, err := readMessage(io.MultiReader(bytes.NewReader(huge), strings.NewReader("more"))); !errors.Is(err, errForm) {
		t.Errorf("two gigabytes: %v", err)
	}
}

// Every value comes back as it was sent, whatever stands before it.
func TestAlignment(t *testing.T) {
	for before := range 9 {
		e := encoder{b: make([]byte, before)}
		e.variant("text")
		e.variant(uint32(77))
		e.uint64(1 << 40)
		d := decoder{b: e.b, at: before}
		text, _ := d.variant()
		_, n := d.variant()
		d.align(8)
		if b := d.take(8); text != "text" || n != 77 || d.err != nil || b[5] != 1 {
			t.Errorf("behind %d bytes: %q %d %v", before, text, n, d.err)
		}
	}
	var e encoder
	e.string("zero\x00byte")
	e.variant(3.5)
	if e.err == nil {
		t.Error("a text with a zero byte, and a value of an unknown type, are sent")
	}
}

func FuzzMessage(f *testing.F) {
	f.Add(jobRemoved())
	f.Add(answer(kindError, 3, 2, "", "s", func(e *encoder) { e.string("no") }))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := readMessage(bytes.NewReader(b))
		if err != nil {
			return
		}
		for _, signature := range []string{"s", "o", "uoss", "v"} {
			args, err := m.arguments(signature)
			if err == nil && len(args) != len(signature) {
				t.Errorf("%d arguments of %s", len(args), signature)
			}
		}
	})
}
