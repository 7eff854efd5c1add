package cli

import (
	"errors"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"
)

func TestTexts(t *testing.T) {
	now := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	rows := []struct{ got, want string }{
		{humanSize(0), "0B"}, {humanSize(999), "999B"}, {humanSize(10_512_345), "10.5MB"}, {humanTotal(10_512_345), "10.51MB"}, {humanSize(1e12), "1TB"},
		{humanMemory(10 << 20), "10MiB"}, {humanMemory(1536), "1.5KiB"}, {humanMemory(0), "0B"},
		{ago(now, now), "Less than a second ago"}, {ago(now, now.Add(-time.Second)), "1 second ago"}, {ago(now, now.Add(-90*time.Second)), "About a minute ago"},
		{ago(now, now.Add(-3*time.Minute)), "3 minutes ago"}, {ago(now, now.Add(-time.Hour)), "About an hour ago"}, {ago(now, now.Add(-72*time.Hour)), "3 days ago"},
		{shortID("sha256:0123456789abcdef"), "0123456789ab"}, {shortID("abc"), "abc"}, {shortID("0123456789abcdef"), "0123456789ab"},
		{ellipsis("abcdef", 6), "abcdef"}, {ellipsis("abcdefg", 6), "abcde…"}, {ellipsis("abc", 1), "…"}, {ellipsis("abc", 0), ""}, {ellipsis("日本語日本語", 6), "日本…"},
		{labelText(map[string]string{"b": "2", "a": "1"}), "a=1,b=2"}, {labelText(nil), ""},
		{familiarName("docker.io/library/x"), "x"}, {familiarName("docker.io/a/x"), "a/x"}, {familiarName("r.example/library/x"), "r.example/library/x"},
		{headerName("CreatedBy"), "CREATED BY"}, {headerName("ID"), "ID"}, {headerName("Names"), "NAMES"},
		{truncateText("häuser", 2), "h"}, {truncateText("ab", 5), "ab"}, {titleText("hello wide_world it's"), "Hello Wide_world It's"}, {padText("", 1, 1), ""}, {padText("x", 1, 2), " x  "},
	}
	for i, row := range rows {
		if row.got != row.want {
			t.Errorf("row %d: %q, want %q", i, row.got, row.want)
		}
	}
}

func TestNaturalOrder(t *testing.T) {
	for _, pair := range [][2]string{{"web2", "web10"}, {"a", "b"}, {"a", "aa"}, {"a1", "a01"}, {"1", "a"}, {"x9y1", "x10y0"}, {"", "a"}} {
		if compareNatural(pair[0], pair[1]) >= 0 || compareNatural(pair[1], pair[0]) <= 0 || compareNatural(pair[0], pair[0]) != 0 {
			t.Errorf("%q does not stand before %q", pair[0], pair[1])
		}
	}
}

func TestColumns(t *testing.T) {
	in := "A\tB\tC\nlong word of all\t日本\tx\nno columns\ntwo\tt\n"
	want := "A                  B         C\nlong word of all   日本      x\nno columns\ntwo       t\n"
	if got := string(alignColumns([]byte(in))); got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func FuzzColumns(f *testing.F) {
	f.Add("a\tb\nccccccccccccccc\td\te\n\n\t\t")
	f.Add("IMAGE\tCREATED BY\nx\tRUN \x1b]0;evil\a\x1b[2J\u009b")
	f.Fuzz(func(t *testing.T, text string) {
		if !utf8.ValidString(text) {
			return
		}
		got := string(alignColumns([]byte(text)))
		if strings.Contains(got, "\t") {
			t.Errorf("a tab is left in %q", got)
		}
		squeeze := func(s string) string { return strings.Join(strings.Fields(s), "") }
		if squeeze(got) != squeeze(printable(text)) || strings.ContainsFunc(got, func(r rune) bool { return unicode.IsControl(r) && r != '\n' }) {
			t.Errorf("%q became %q", text, got)
		}
	})
}

// TestStrangersMoveNoCursor: errors, events and names of files have words of images and containers in them, which a terminal would obey.
func TestStrangersMoveNoCursor(t *testing.T) {
	evil := "\x1b]0;evil\a\x1b[2J\u009bname"
	var out strings.Builder
	printError(&out, errors.New("no such user "+evil))
	in := strings.NewReader(`{"Type":"container","Action":"die","Actor":{"ID":"x","Attributes":{"label":"\u001b[2Jname","other":"a)\n2026-01-01T00:00:00Z container die"}}}`)
	if err := printEvents(&out, in, nil); err != nil {
		t.Fatal(err)
	}
	if text := out.String(); strings.ContainsFunc(text, func(r rune) bool { return unicode.IsControl(r) && r != '\n' }) || strings.Count(text, "name") != 2 || strings.Count(text, "\n") != 2 {
		t.Errorf("%q", text)
	}
}
