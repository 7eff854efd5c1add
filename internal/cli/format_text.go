package cli

import (
	"bytes"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/docker/go-units"
)

// humanSize writes a size in decimal units, as images and layers have them: 10.5MB.
func humanSize(bytes int64) string { return units.HumanSizeWithPrecision(float64(bytes), 3) }

// humanTotal writes a sum with a digit more: 10.52MB.
func humanTotal(bytes int64) string { return units.HumanSize(float64(bytes)) }

// humanMemory writes a size in binary units, as memory has them: 10.52MiB.
func humanMemory(bytes uint64) string { return units.BytesSize(float64(bytes)) }

// ago writes how long before now something was: "3 minutes ago".
func ago(now, then time.Time) string { return units.HumanDuration(now.Sub(then)) + " ago" }

// withoutPreamble takes off an error what Docker's engine says before the point, and clients of its API look for.
func withoutPreamble(text string) string {
	text = strings.TrimPrefix(text, "OCI runtime exec failed: ")
	if rest, ok := strings.CutPrefix(text, "failed to set up container networking: driver failed programming external connectivity on endpoint "); ok {
		if _, point, ok := strings.Cut(rest, "): "); ok {
			return point
		}
	}
	return text
}

// shortenIDs cuts the ids of containers and networks in a sentence to what people read. Digests stay whole.
func shortenIDs(text string) string {
	isDigit := func(c byte) bool { return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' }
	var b strings.Builder
	for i := 0; i < len(text); {
		end := i
		for end < len(text) && isDigit(text[end]) {
			end++
		}
		switch {
		case end == i:
			end++
			b.WriteByte(text[i])
		case end-i == 64 && (i == 0 || text[i-1] == ' ' || text[i-1] == '"' || text[i-1] == '(' || text[i-1] == '['):
			b.WriteString(text[i : i+12])
		default:
			b.WriteString(text[i:end])
		}
		i = end
	}
	return b.String()
}

// sinceUnix is ago for when an image was made: reproducible builds have no date, or an invented one.
func sinceUnix(now time.Time, then int64) string {
	if t := time.Unix(then, 0); t.UTC().Year() >= 2000 {
		return ago(now, t)
	}
	return "N/A"
}

// shortID is the part of an id that people read: twelve digits, without the algorithm.
func shortID(id string) string {
	if _, digits, ok := strings.Cut(id, ":"); ok {
		id = digits
	}
	if len(id) > 12 {
		id = id[:12]
	}
	return id
}

// ellipsis cuts a text to so many columns, the last of which says that something is missing.
func ellipsis(s string, most int) string {
	if textWidth(s) <= most {
		return s
	}
	if most <= 0 {
		return ""
	}
	var b strings.Builder
	width := 0
	for _, r := range s {
		width += runeWidth(r)
		if width > most-1 {
			break
		}
		b.WriteRune(r)
	}
	return b.String() + "…"
}

// labelText writes labels as k=v, sorted and parted by commas.
func labelText(labels map[string]string) string {
	parts := make([]string, 0, len(labels))
	for k, v := range labels {
		parts = append(parts, k+"="+v)
	}
	slices.Sort(parts)
	return strings.Join(parts, ",")
}

// familiarName drops what every reference to Docker Hub may leave out.
func familiarName(name string) string {
	if rest, ok := strings.CutPrefix(name, "docker.io/"); ok {
		return strings.TrimPrefix(rest, "library/")
	}
	return name
}

// alignColumns is the manner of listings: columns of ten and more, three spaces between them.
func alignColumns(text []byte) []byte { return alignCells(text, 10, 3) }

// alignCells turns tabs into spaces. A cell that a tab ends belongs to a column, which lasts for as long as consecutive lines have a cell
// there; what follows a line's last tab is left as it is, but for what could move a terminal's cursor: images choose some of these words. No column is narrower than least, and gap spaces follow its widest cell.
func alignCells(text []byte, least, gap int) []byte {
	var lines [][]string
	for line := range strings.SplitSeq(strings.TrimSuffix(printable(string(text)), "\n"), "\n") {
		lines = append(lines, strings.Split(line, "\t"))
	}
	widths := make([][]int, len(lines))
	for i, cells := range lines {
		widths[i] = make([]int, len(cells)-1)
	}
	for i := range lines {
		for column := range widths[i] {
			if widths[i][column] > 0 {
				continue // measured with an earlier line
			}
			width, end := least, i
			for ; end < len(lines) && column < len(widths[end]); end++ {
				width = max(width, textWidth(lines[end][column])+gap)
			}
			for j := i; j < end; j++ {
				widths[j][column] = width
			}
		}
	}
	var out bytes.Buffer
	for i, cells := range lines {
		for column, width := range widths[i] {
			out.WriteString(cells[column])
			out.WriteString(strings.Repeat(" ", width-textWidth(cells[column])))
		}
		out.WriteString(cells[len(cells)-1])
		out.WriteByte('\n')
	}
	return out.Bytes()
}

// textWidth is how many columns of a terminal a text takes.
func textWidth(s string) int {
	width := 0
	for _, r := range s {
		width += runeWidth(r)
	}
	return width
}

// runeWidth follows Unicode's East Asian width for the scripts that terminals draw over two columns.
func runeWidth(r rune) int {
	switch {
	case r < 0x20 || r == 0x7f:
		return 0
	case r < 0x300:
		return 1
	case unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf):
		return 0
	case r >= 0x1100 && r <= 0x115f, r >= 0x2e80 && r <= 0xa4cf && r != 0x303f, r >= 0xac00 && r <= 0xd7a3, r >= 0xf900 && r <= 0xfaff,
		r >= 0xfe30 && r <= 0xfe6f, r >= 0xff00 && r <= 0xff60, r >= 0xffe0 && r <= 0xffe6,
		r >= 0x1f300 && r <= 0x1f64f, r >= 0x1f900 && r <= 0x1f9ff, r >= 0x20000 && r <= 0x3fffd:
		return 2
	}
	return 1
}
