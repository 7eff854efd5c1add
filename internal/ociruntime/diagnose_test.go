package ociruntime

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// TestWhyAProgramDoesNotStart: each cause has its exit code and says what to do, by run and by exec.
func TestWhyAProgramDoesNotStart(t *testing.T) {
	files := map[string]string{
		"plain": "not a program\n", "noscript": "#!/no/such/interpreter -x\necho\n", "crlf": "#!/bin/sh\r\necho\r\n", "env-crlf": "#!/usr/bin/env sh\r\n",
		"empty": "", "bom": "\xef\xbb\xbf#!/bin/sh\n", "notexec": "#!/bin/sh\n", "arm": program(183, ""), "musl": program(62, "/lib/ld-musl-x86_64.so.1"), "riscv32": strings.Replace(program(243, ""), "\x7fELF\x02", "\x7fELF\x01", 1),
	}
	dynamic, err := os.ReadFile("/bin/ls") // a real program: its section headers lie far behind what is read
	must(t, err)
	files["dynamic"] = string(dynamic)
	rows := map[string]struct {
		args []string
		cwd  string
		code int
		says []string
	}{
		"no such file":        {args: []string{"/no/such"}, code: 127, says: []string{"exec /no/such: ", "no such file", "check the path"}},
		"not in PATH":         {args: []string{"nothing"}, code: 127, says: []string{`"nothing": executable file not found in $PATH`, "PATH"}},
		"folder":              {args: []string{"/bin"}, code: 126, says: []string{"permission denied", "it is a folder"}},
		"empty command":       {args: []string{""}, code: 127, says: []string{`exec: "": executable file not found in $PATH`, "empty word"}},
		"empty file":          {args: []string{"/bin/empty"}, code: 126, says: []string{"exec format error", "an empty file"}},
		"byte order mark":     {args: []string{"/bin/bom"}, code: 126, says: []string{"exec format error", "byte order mark"}},
		"below a file":        {args: []string{"/bin/sh/x"}, code: 127, says: []string{"/bin/sh/x"}},
		"not executable":      {args: []string{"/bin/notexec"}, code: 126, says: []string{"permission denied", "mode is 0644", "chmod +x"}},
		"not exec., in PATH":  {args: []string{"notexec"}, code: 126, says: []string{"permission denied", "mode is 0644", "chmod +x"}},
		"no format":           {args: []string{"/bin/plain"}, code: 126, says: []string{"exec format error", "#!"}},
		"missing interpreter": {args: []string{"noscript"}, code: 127, says: []string{"/no/such/interpreter", "not in the image"}},
		"CRLF":                {args: []string{"/bin/crlf"}, code: 127, says: []string{"CRLF", `/bin/sh\r`, "dos2unix"}},
		"CRLF with env":       {args: []string{"/bin/env-crlf"}, code: 127, says: []string{"CRLF"}},
		"other machine":       {args: []string{"/bin/arm"}, code: 126, says: []string{"arm64", "amd64", "platform"}},
		"32-bit machine":      {args: []string{"/bin/riscv32"}, code: 126, says: []string{"exec format error", "riscv64"}},
		"real, other libc":    {args: []string{"/bin/dynamic"}, code: 127, says: []string{"ld-linux-x86-64.so.2", "libc"}},
		"other libc":          {args: []string{"musl"}, code: 127, says: []string{"/lib/ld-musl-x86_64.so.1", "libc"}},
		"no folder":           {args: []string{"true"}, cwd: "/bin/sh", code: 126, says: []string{"/bin/sh", "not a directory", "-w"}},
	}
	prepare := func() *box {
		b := newBox(t)
		for name, content := range files {
			mode := os.FileMode(0o755)
			if name == "notexec" {
				mode = 0o644
			}
			must(t, os.WriteFile(filepath.Join(b.image, "bin", name), []byte(content), mode))
		}
		return b
	}
	b := prepare()
	c := b.sleeper()
	for name, row := range rows {
		if row.cwd == "" {
			row.cwd = "/"
		}
		check := func(how string, err error) {
			t.Helper()
			var e *ExecError
			if !errors.As(err, &e) || e.ExitCode() != row.code {
				t.Errorf("%s, %s: %v (want code %d)", name, how, err, row.code)
				return
			}
			for _, s := range row.says {
				if !strings.Contains(err.Error(), s) {
					t.Errorf("%s, %s: %q does not say %q", name, how, err, s)
				}
			}
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("%s: more than one line: %q", name, err)
			}
		}
		_, _, err := b.exec(c, &specs.Process{Args: row.args, Cwd: row.cwd})
		check("exec", err)
		other := prepare()
		other.spec.Process.Args, other.spec.Process.Cwd = row.args, row.cwd
		_, _, err = other.run()
		check("run", err)
	}
}

// program is the head of a program for a machine, with an interpreter where one is named.
func program(machine byte, interpreter string) string {
	h := make([]byte, 64+56)
	copy(h, "\x7fELF\x02\x01\x01")
	h[16], h[18], h[20] = 2, machine, 1
	h[32], h[52], h[54], h[58] = 64, 64, 56, 64 // program headers follow
	if interpreter != "" {
		h[56] = 1
		p := h[64:]
		p[0], p[4], p[8] = 3, 4, byte(len(h)) // PT_INTERP
		p[32], p[40] = byte(len(interpreter)+1), byte(len(interpreter)+1)
	}
	return string(h) + interpreter + "\x00"
}

// FuzzHead: what an image holds at its entrypoint is read by no more than its first bytes and upsets nobody.
func FuzzHead(f *testing.F) {
	for _, s := range []string{"", "#!", "#!\r", "#! /bin/sh\r\n", "\x7fELF", program(62, "/lib/x"), program(183, ""), program(62, "/\x1b]0;evil\a"), "#!/\x1b[2J",
		"#!" + strings.Repeat("/x", 30000)} {
		f.Add([]byte(s))
	}
	root, err := os.Open(f.TempDir())
	if err != nil {
		f.Fatal(err)
	}
	defer root.Close()
	f.Fuzz(func(t *testing.T, head []byte) {
		why, _ := interpreterProblem(view{root: root, cwd: "/"}, head)
		if len(why) > 2000 || strings.ContainsFunc(why, unicode.IsControl) {
			t.Errorf("%d bytes of explanation: %q", len(why), why)
		}
	})
}
