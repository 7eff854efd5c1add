package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode"

	"github.com/moby/moby/api/types/jsonstream"
	"golang.org/x/term"
)

// showMessages prints the engine's stream of messages as it comes: on a terminal each layer has a line that is drawn again, elsewhere each
// step is a line and what only counts bytes is left out. A message that tells an error ends it.
func showMessages(out io.Writer, body io.Reader) error {
	fd, live := terminal(out)
	d := display{out: out, size: func() (int, int) { return 0, 0 }}
	if live {
		d.size = func() (int, int) {
			width, height, err := term.GetSize(fd)
			if err != nil {
				return 80, 24
			}
			return width, height
		}
	}
	decoder := json.NewDecoder(body)
	for {
		var m message
		err := decoder.Decode(&m)
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("the engine's answer broke off: %w", err)
		}
		if err := m.err(); err != nil {
			return err
		}
		if err := d.show(m); err != nil {
			return err
		}
	}
}

// message of the engine; older ones tell errors in a field of their own.
type message struct {
	jsonstream.Message
	OldError string `json:"error"`
}

func (m message) err() error {
	switch {
	case m.Error != nil:
		return errors.New(m.Error.Message)
	case m.OldError != "":
		return errors.New(m.OldError)
	}
	return nil
}

// display draws messages.
type display struct {
	out  io.Writer
	size func() (width, height int) // 0, 0 where it is no terminal
	ids  []string                   // of the lines that may be drawn again, the lowest last
}

func (d *display) show(m message) error {
	width, height := d.size()
	var err error
	switch {
	case m.Stream != "":
		d.ids = nil
		_, err = io.WriteString(d.out, printable(m.Stream))
	case m.Status == "" || height == 0 && moves(m.Progress):
	case m.ID == "":
		d.ids = nil
		_, err = fmt.Fprintln(d.out, printable(m.Status))
	case height == 0:
		_, err = fmt.Fprintf(d.out, "%s: %s\n", printable(m.ID), printable(m.Status))
	default:
		err = d.draw(m, width, height)
	}
	return err
}

// draw puts a message on the line of its id. The cursor always stands below the last line.
func (d *display) draw(m message, width, height int) error {
	text := strings.Join(strings.Fields(printable(m.ID+": "+m.Status)), " ")
	text = clip(text+bar(m.Progress, width), width-1)
	for i, id := range d.ids {
		if id != m.ID {
			continue
		}
		up := len(d.ids) - i
		if up >= height {
			return nil // it has left the screen
		}
		_, err := fmt.Fprintf(d.out, "\x1b[%dA\r\x1b[2K%s\x1b[%dB\r", up, text, up)
		return err
	}
	d.ids = append(d.ids, m.ID)
	_, err := fmt.Fprintf(d.out, "%s\n", text)
	return err
}

func moves(p *jsonstream.Progress) bool { return p != nil && (p.Current > 0 || p.Total > 0) }

// bar is what stands behind the status: "  [====>     ]  1.2MB/5MB".
func bar(p *jsonstream.Progress, width int) string {
	if !moves(p) {
		return ""
	}
	if p.Total <= 0 {
		return "  " + humanSize(p.Current)
	}
	current := min(p.Current, p.Total)
	count := fmt.Sprintf("  %s/%s", humanSize(current), humanSize(p.Total))
	cells := min(50, width-len("0123456789ab: Downloading  []  12.3MB/12.3MB")-1)
	if cells < 5 {
		return count
	}
	full := min(int(float64(cells)*float64(max(current, 0))/float64(p.Total)), cells)
	done := strings.Repeat("=", full)
	if full < cells {
		done += ">" + strings.Repeat(" ", cells-full-1)
	}
	return "  [" + done + "]" + count
}

// clip cuts a text to so many columns.
func clip(s string, width int) string {
	for i, r := range s {
		if width -= runeWidth(r); width < 0 {
			return s[:i]
		}
	}
	return s
}

// printable takes out what could move the cursor, and what shows letters in another order than they have: some of these texts come from registries.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && r != '\n' && r != '\t' || unicode.Is(unicode.Bidi_Control, r) {
			return -1
		}
		return r
	}, s)
}
