package sources

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// written puts files into a folder of their own.
func written(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// lines are references as name@line.
func lines(list []Reference) []string {
	out := []string{}
	for _, r := range list {
		out = append(out, r.Name+"@"+strconv.Itoa(r.Line))
	}
	return out
}

func TestDockerfile(t *testing.T) {
	for name, row := range map[string]struct {
		text string
		args map[string]string
		want string
	}{
		"plain":            {"FROM debian:12\nRUN true\n", nil, "debian:12@1"},
		"no line's end":    {"from debian:12", nil, "debian:12@1"},
		"syntax":           {"# syntax=docker/dockerfile:1\n\nFROM a", nil, "docker/dockerfile:1@1 a@3"},
		"syntax too late":  {"# a comment\n# syntax=docker/dockerfile:1\nFROM a", nil, "a@3"},
		"windows":          {"\xef\xbb\xbf# escape=`\r\nFROM a `\r\n AS b\r\nFROM b", nil, "a@2"},
		"stages":           {"FROM a AS One\nFROM one AS two\nFROM scratch\nCOPY --from=two / /\nCOPY --from=0 / /\nCOPY --from=7 / /\nCOPY --chown=1:1 --from=c:1 / /\n", nil, "a@1 7@6 c:1@7"},
		"later stage":      {"FROM a\nCOPY --from=tools / /\nFROM b AS tools", nil, "a@1 b@3"},
		"platform":         {"FROM --platform=$BUILDPLATFORM golang:1.26 AS build\nFROM --platform=linux/arm64 debian", nil, "golang:1.26@1 debian@2"},
		"args":             {"ARG V=12 W\nARG BASE=debian:${V}-slim\nFROM ${BASE} AS x\nFROM \"alpine:${X:-3}\"", nil, "debian:12-slim@3 alpine:3@4"},
		"args given":       {"ARG V=12\nARG W\nFROM debian:$V$W", map[string]string{"V": "13", "W": "-slim", "BASE": "not declared"}, "debian:13-slim@3"},
		"args with quotes": {"ARG A='$b'\nARG C=\"d e\"\nFROM x:1", nil, "x:1@3"},
		"alternatives":     {"ARG A=1 E=\nFROM ${A:+yes}\nFROM ${E:+yes}${E:-no}\nFROM x${E-no}${B+no}${A?}\nFROM ${B-${A:-q}z}", nil, "yes@2 no@3 x1@4 1z@5"},
		"arg of a stage":   {"ARG A=1\nFROM a:$A\nARG A=2\nFROM a:$A", nil, "a:1@2 a:1@4"},
		"continued":        {"FROM \\\n# between\n\n  debian:12 \\\n  AS x\nRUN a \\\n  --mount=type=bind,from=no", nil, "debian:12@1"},
		"mounts":           {"FROM a AS s\nRUN --mount=type=cache,target=/x --mount=type=bind,from=tools:1,source=/,target=/t --network=none make\nRUN --mount=from=s,target=/y true --mount=from=no", nil, "a@1 tools:1@2"},
		"heredoc":          {"FROM a\nRUN <<EOF cat <<-\"TWO\"\nFROM no\nEOF\nFROM no\n\tTWO\nCOPY <<E2 /f\nFROM no\nE2\nRUN cat <<<FROM\nFROM b", nil, "a@1 b@11"},
		"arch":             {"FROM a AS base-amd64\nFROM b AS base-arm64\nFROM base-${TARGETARCH}", nil, "a@1 b@2"},
		"onbuild":          {"FROM a\nONBUILD COPY --from=x / /\nLABEL a='FROM b'", nil, "a@1"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := written(t, map[string]string{"Dockerfile": row.text})
			got, err := Read(filepath.Join(dir, "Dockerfile"), Options{Args: row.args})
			if err != nil || !slices.Equal(lines(got), strings.Fields(row.want)) {
				t.Errorf("%v %v, not %s", lines(got), err, row.want)
			}
		})
	}
}

func TestDockerfileErrors(t *testing.T) {
	for text, want := range map[string]string{
		"ARG BASE\nFROM $BASE":               "line 2: FROM $BASE: BASE has no value: give it with --build-arg BASE=VALUE",
		"FROM ${A?say which}":                "say which",
		"FROM a b":                           "it is FROM",
		"FROM":                               "it is FROM",
		"ARG A=\nFROM $A":                    "empty",
		"FROM ${A":                           "a } is missing",
		"FROM ${A/b/c}":                      "not understood",
		"FROM a\nRUN <<EOF\nx":               "line 2: the document <<EOF does not end",
		"FROM a\nCOPY --from=$X / /":         "variables are not replaced there",
		"FROM " + strings.Repeat("${A:-", 9): "",
	} {
		dir := written(t, map[string]string{"Dockerfile": text})
		if got, err := Read(filepath.Join(dir, "Dockerfile"), Options{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v %v", text, got, err)
		}
	}
}

func TestCompose(t *testing.T) {
	dir := written(t, map[string]string{
		"compose.yaml": `
x-base: &base
  image: "base:${V:-1}"
x-more: &more {image: more, volumes: [{type: image, source: data:1, target: /d}, "a:/b"]}
include:
  - other.yml
  - path: [third.yml]
services:
  a: {image: a:$$x$V}
  b:
    <<: *base
    command: ["image: no"]
  c:
    <<: [*more, *base]
    image: >-
      c:${T-2}
  d: *base
  built:
    image: mine:1
    build: ./web
  inline:
    build:
      dockerfile_inline: |
        FROM inline:1
  far:
    build: https://example.org/x.git
  args:
    build:
      context: web
      dockerfile: Second
      args: [BASE=given, "UNUSED=${NOT_SET}"]
      additional_contexts: {x: docker-image://ctx:1}
  child:
    extends: {file: third.yml, service: z}
`,
		"other.yml":      "services: {o: {image: 'o:${FROM_DOTENV}'}}\n---\nservices:\n  p:\n    image: p\n",
		"third.yml":      "include: [compose.yaml]\nservices:\n  z:\n    image: z:${Q}\n",
		".env":           "# a comment\nexport FROM_DOTENV=\"1.2\"  # why\nQ='3'\nV=shadowed\nT=${Q}x\n",
		"web/Dockerfile": "FROM web:1\n",
		"web/Second":     "ARG BASE=none\nFROM ${BASE}\n",
	})
	env := func(name string) (string, bool) { return "7", name == "V" }
	got, err := Read(filepath.Join(dir, "compose.yaml"), Options{Env: env})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, r := range got {
		names = append(names, r.Name)
	}
	want := "o:1.2 p z:3 a:$x7 base:7 c:3x data:1 base:7 web:1 inline:1 ctx:1 given"
	if strings.Join(names, " ") != want {
		t.Errorf("%s\nnot\n%s", strings.Join(names, " "), want)
	}
	if got[3].Line != 9 || got[8].File != filepath.Join(dir, "web/Dockerfile") {
		t.Errorf("places: %+v", got)
	}
}

func TestComposeErrors(t *testing.T) {
	for text, want := range map[string]string{
		"services:\n  a:\n    image: a:${TAG}\n":           "line 3: a:${TAG}: TAG has no value: set it in the environment or in .env",
		"services:\n  a:\n    image: ${TAG:?choose one}\n": "choose one",
		"services: [\n":                                       "compose.yaml: line 1: ",
		"services:\n  a:\n    build: nowhere\n":               "no such file",
		"include: [gone.yml]\n":                               "no such file",
		"a: " + strings.Repeat("[", 1000):                     "nested too deep",
		"services:\n  a:\n    extends: {file: git@x:y.git}\n": "not a file here",
	} {
		dir := written(t, map[string]string{"compose.yaml": text})
		if got, err := Read(filepath.Join(dir, "compose.yaml"), Options{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v %v", text, got, err)
		}
	}
}

// TestAliasesDoNotGrow: a file whose aliases would fill any memory is read by what is asked for.
func TestAliasesDoNotGrow(t *testing.T) {
	var b strings.Builder
	b.WriteString("x0: &x0 {image: a}\n")
	for i := 1; i < 40; i++ {
		n, p := strconv.Itoa(i), strconv.Itoa(i-1)
		b.WriteString("x" + n + ": &x" + n + " {l: [*x" + p + ", *x" + p + ", *x" + p + "], <<: [*x" + p + ", *x" + p + ", *x" + p + "]}\n")
	}
	b.WriteString("services:\n  a: *x6\n  aa: *x39\n  b: &b {<<: *b}\n")
	dir := written(t, map[string]string{"compose.yaml": b.String()})
	got, err := Read(filepath.Join(dir, "compose.yaml"), Options{})
	if err != nil || len(got) != 2 || got[0].Name != "a" {
		t.Errorf("%v %v", got, err)
	}
}

func TestUsual(t *testing.T) {
	dir := written(t, map[string]string{"Containerfile": "", "docker-compose.yml": "", "compose.yml": "", "Dockerfile.dev": ""})
	var names []string
	for _, path := range Usual(dir) {
		names = append(names, filepath.Base(path))
	}
	if strings.Join(names, " ") != "Containerfile compose.yml" {
		t.Error(names)
	}
}

func FuzzDockerfile(f *testing.F) {
	f.Add("# escape=`\nARG A=b\nFROM ${A:-x} AS s\nRUN --mount=from=s <<E\nE\n")
	f.Add("FROM ${A:+${B?c}}")
	f.Fuzz(func(t *testing.T, text string) {
		r := &reader{}
		_ = r.dockerfileText("Dockerfile", []byte(text), nil)
		for _, u := range r.found {
			if u.Name == "" || u.Line < 1 || u.Line > 1+strings.Count(text, "\n") {
				t.Errorf("%+v", u)
			}
		}
	})
}

func FuzzCompose(f *testing.F) {
	f.Add("services: {a: &a {image: 'b:${C:-d}', <<: [*a]}}")
	f.Add("a: &a [*a]\nservices: *a\n---\nservices: {x: {build: {dockerfile_inline: FROM x}}}")
	f.Fuzz(func(t *testing.T, text string) {
		docs, err := parseYAML([]byte(text))
		if err != nil {
			return
		}
		for _, doc := range docs {
			c := &compose{reader: &reader{}, doc: doc, path: "compose.yaml", env: func(string) (string, bool) { return "", false }}
			for _, s := range doc.pairs(doc.get(doc.root, "services")) {
				if doc.get(s.value, "build") == nil {
					_ = c.service(s.value)
				}
			}
		}
	})
}
