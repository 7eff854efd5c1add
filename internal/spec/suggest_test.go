package spec

import "testing"

func TestSuggest(t *testing.T) {
	words := []string{"always", "on-failure", "no"}
	for word, want := range map[string]string{
		"alway": "did you mean always?", "ALWAYS": "did you mean always?", "on_failure": "did you mean on-failure?", "xyz": "it can be always, on-failure, no",
	} {
		if got := Suggest(word, words); got != want {
			t.Errorf("%s: %q, want %q", word, got, want)
		}
	}
	if got := Suggest("FOO", capabilityNames); got != "there is none of that name, nor of a similar one" {
		t.Errorf("far from all: %q", got)
	}
}
