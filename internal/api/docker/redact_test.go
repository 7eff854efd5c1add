package docker

import "testing"

func TestRedacted(t *testing.T) {
	for text, want := range map[string]string{
		"nothing": "nothing",
		"get http://me:s3cret@h:1/x.tar?token=s3cret: refused":    "get http://h:1/x.tar?…: refused",
		`Get "https://a@b@h/p": x, and tcp://h?s3cret`:            `Get "https://h/p": x, and tcp://h?…`,
		"ftp://h/a?x=s3cret#s3cret":                               "ftp://h/a?…",
		"invalid environment variable: =s3cret: a name is needed": "invalid environment variable",
		"://": "://",
		"see https://docs.example/page. And git://u:p@h/r.git#main": "see https://docs.example/page. And git://h/r.git#main",
	} {
		if got := redacted(text); got != want {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
	for address, want := range map[string]string{"": "", "-": "-", "http://u:p@h/x?t=1": "http://h/x", "client-session": "client-session", "http://[": "(an address that cannot be read)"} {
		if got := withoutSecrets(address); got != want {
			t.Errorf("%s: %q, want %q", address, got, want)
		}
	}
}
