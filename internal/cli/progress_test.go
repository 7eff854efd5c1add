package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// screen is a terminal of a few lines that knows what the display uses: moving up and down, clearing a line, the line's begin and end.
type screen struct {
	width, height int
	lines         []string
	row, column   int
}

func (s *screen) Write(p []byte) (int, error) {
	for text := string(p); text != ""; {
		switch {
		case strings.HasPrefix(text, "\x1b["):
			end := strings.IndexAny(text[2:], "ABK") + 2
			var n int
			fmt.Sscan(text[2:end], &n)
			switch text[end] {
			case 'A':
				s.row = max(0, s.row-n)
			case 'B':
				s.row = min(s.height-1, s.row+n)
			case 'K':
				s.lines[s.row] = ""
			}
			text = text[end+1:]
			continue
		case text[0] == '\r':
			s.column = 0
		case text[0] == '\n':
			s.column = 0
			if s.row++; s.row == s.height {
				s.row--
				s.lines = append(s.lines[1:], "")
			}
		default:
			if s.column >= s.width {
				panic("a line is too long: the terminal would break it")
			}
			s.lines[s.row] = s.lines[s.row][:s.column] + text[:1] + s.lines[s.row][min(len(s.lines[s.row]), s.column+1):]
			s.column++
		}
		text = text[1:]
	}
	return len(p), nil
}

const pullStream = `
{"status":"Pulling from library/x","id":"latest"}
{"status":"Pulling fs layer","progressDetail":{},"id":"aaaaaaaaaaaa"}
{"status":"Pulling fs layer","progressDetail":{},"id":"bbbbbbbbbbbb"}
{"status":"Downloading","progressDetail":{"current":500000,"total":1000000},"progress":"[==>  ]","id":"bbbbbbbbbbbb"}
{"status":"Downloading","progressDetail":{"current":2000000,"total":1000000},"id":"aaaaaaaaaaaa"}
{"status":"Extracting","progressDetail":{"current":3},"id":"aaaaaaaaaaaa"}
{"status":"Pull complete\u001b[2J","progressDetail":{},"id":"aaaaaaaaaaaa"}
{"status":"Digest: sha256:1"}
{"aux":{"Tag":"x"}}
{"status":"Pull complete","progressDetail":{},"id":"bbbbbbbbbbbb"}
{"stream":"Loaded image: x\n"}
`

func TestProgressOnATerminal(t *testing.T) {
	s := &screen{width: 60, height: 10, lines: make([]string, 10)}
	d := display{out: s, size: func() (int, int) { return s.width, s.height }}
	halfway := ""
	for i, line := range strings.Split(strings.TrimSpace(pullStream), "\n") {
		showOne(t, &d, line)
		if i == 4 {
			halfway = strings.TrimSpace(strings.Join(s.lines, "\n"))
		}
	}
	want := "latest: Pulling from library/x\n" +
		"aaaaaaaaaaaa: Downloading  [===============]  1MB/1MB\n" +
		"bbbbbbbbbbbb: Downloading  [=======>       ]  500kB/1MB"
	if halfway != want {
		t.Errorf("halfway:\n%s\nwant\n%s", halfway, want)
	}
	want = "latest: Pulling from library/x\naaaaaaaaaaaa: Pull complete[2J\nbbbbbbbbbbbb: Downloading  [=======>       ]  500kB/1MB\n" +
		"Digest: sha256:1\nbbbbbbbbbbbb: Pull complete\nLoaded image: x"
	if got := strings.TrimSpace(strings.Join(s.lines, "\n")); got != want {
		t.Errorf("in the end:\n%s\nwant\n%s", got, want)
	}
}

func showOne(t *testing.T, d *display, line string) {
	t.Helper()
	m, err := decodeMessage(line)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.show(m); err != nil {
		t.Fatal(err)
	}
}

// TestProgressOfManyLayers: lines that have left a small screen are not drawn over others.
func TestProgressOfManyLayers(t *testing.T) {
	s := &screen{width: 40, height: 5, lines: make([]string, 5)}
	d := display{out: s, size: func() (int, int) { return s.width, s.height }}
	for round := range 2 {
		for i := range 8 {
			showOne(t, &d, fmt.Sprintf(`{"id":"layer%d","status":"round %d"}`, i, round))
		}
	}
	want := "layer4: round 1\nlayer5: round 1\nlayer6: round 1\nlayer7: round 1"
	if got := strings.TrimSpace(strings.Join(s.lines, "\n")); got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	for _, width := range []int{1, 2, 10, 20, 30} {
		s := &screen{width: width, height: 5, lines: make([]string, 5)}
		d := display{out: s, size: func() (int, int) { return s.width, s.height }}
		showOne(t, &d, `{"id":"aaaaaaaaaaaa","status":"Downloading","progressDetail":{"current":5,"total":10}}`)
	}
}

func TestProgressElsewhere(t *testing.T) {
	var out bytes.Buffer
	if err := showMessages(&out, strings.NewReader(pullStream)); err != nil {
		t.Fatal(err)
	}
	want := "latest: Pulling from library/x\naaaaaaaaaaaa: Pulling fs layer\nbbbbbbbbbbbb: Pulling fs layer\naaaaaaaaaaaa: Pull complete[2J\n" +
		"Digest: sha256:1\nbbbbbbbbbbbb: Pull complete\nLoaded image: x\n"
	if out.String() != want {
		t.Errorf("%s\nwant\n%s", out.String(), want)
	}
}

func TestProgressErrors(t *testing.T) {
	for stream, want := range map[string]string{
		`{"errorDetail":{"message":"denied"},"error":"denied"}`: "denied", `{"error":"old"}`: "old", `{"status":"x"} nonsense`: "broke off", `{"status":`: "broke off",
	} {
		err := showMessages(&bytes.Buffer{}, strings.NewReader(stream))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", stream, err)
		}
	}
}

func FuzzMessages(f *testing.F) {
	for line := range strings.SplitSeq(strings.TrimSpace(pullStream), "\n") {
		f.Add(line, 80, 24)
	}
	f.Add(`{"id":"日本語","status":"日本語","progressDetail":{"current":9223372036854775807,"total":9223372036854775807}}`, 200, 2)
	f.Fuzz(func(t *testing.T, line string, width, height int) {
		m, err := decodeMessage(line)
		if err != nil || m.err() != nil {
			return
		}
		var out bytes.Buffer
		d := display{out: &out, size: func() (int, int) { return width % 500, height % 100 }}
		for range 3 {
			if err := d.show(m); err != nil {
				t.Fatal(err)
			}
		}
		for row := range strings.SplitSeq(out.String(), "\n") {
			_, row, _ = strings.Cut(row, "\x1b[2K")
			row, _, _ = strings.Cut(row, "\x1b[")
			if strings.ContainsFunc(row, func(r rune) bool { return r == 0x1b || r == '\r' }) {
				t.Errorf("what moves the cursor came through: %q", row)
			}
		}
	})
}

func decodeMessage(line string) (m message, err error) {
	err = json.Unmarshal([]byte(line), &m)
	return m, err
}
