package metrics

import (
	"bytes"
	"strconv"
	"strings"
)

// page is a text in Prometheus's format 0.0.4.
type page struct{ b bytes.Buffer }

// kind of a family.
type kind string

const (
	counter   kind = "counter"
	gauge     kind = "gauge"
	histogram kind = "histogram"
)

// family begins one; all its samples follow.
func (p *page) family(name string, k kind, help string) {
	p.b.WriteString("# HELP " + name + " " + strings.NewReplacer("\\", `\\`, "\n", `\n`).Replace(help) + "\n# TYPE " + name + " " + string(k) + "\n")
}

// sample writes a value; labels come in pairs.
func (p *page) sample(name string, value float64, labels ...string) {
	p.b.WriteString(name)
	for i := 0; i+1 < len(labels); i += 2 {
		if i == 0 {
			p.b.WriteByte('{')
		} else {
			p.b.WriteByte(',')
		}
		p.b.WriteString(labels[i])
		p.b.WriteString(`="`)
		p.escape(labels[i+1])
		p.b.WriteByte('"')
	}
	if len(labels) > 1 {
		p.b.WriteByte('}')
	}
	p.b.WriteByte(' ')
	p.b.Write(strconv.AppendFloat(p.b.AvailableBuffer(), value, 'g', -1, 64))
	p.b.WriteByte('\n')
}

// escape writes a label's value. Names of images and containers are UTF-8; what is not becomes the mark for it.
func (p *page) escape(s string) {
	for _, r := range strings.ToValidUTF8(s, "\uFFFD") {
		switch r {
		case '\\':
			p.b.WriteString(`\\`)
		case '"':
			p.b.WriteString(`\"`)
		case '\n':
			p.b.WriteString(`\n`)
		default:
			p.b.WriteRune(r)
		}
	}
}

// one writes a family of a single sample without labels.
func (p *page) one(name string, k kind, help string, value float64) {
	p.family(name, k, help)
	p.sample(name, value)
}
