package test

import (
	"bytes"
	"compress/gzip"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// trojans are programs and libraries that other engines' copies have run, out of the container and as the host's root.
func trojans(out string) []piece {
	script := "#!/bin/sh\necho ran >>/pwned\necho ran >>" + out + "/pwned\n"
	var pieces []piece
	for _, dir := range []string{"bin", "usr/bin", "usr/local/bin", "sbin", "usr/sbin"} {
		for _, name := range []string{"tar", "xz", "unxz", "gzip", "gunzip", "unpigz", "pigz", "zstd", "bzip2", "ps", "nsenter", "newuidmap", "getent"} {
			pieces = append(pieces, piece{name: dir + "/" + name, content: script})
		}
	}
	for _, name := range []string{"libnss_files.so.2", "libnss_compat.so.2", "libc.so.6", "evil.so"} {
		pieces = append(pieces, piece{name: "lib/x86_64-linux-gnu/" + name, content: script}, piece{name: "lib64/" + name, content: script})
	}
	return append(pieces, piece{name: "etc/ld.so.preload", content: "/lib64/evil.so\n"}, piece{name: "etc/nsswitch.conf", content: "passwd: evil files\n"})
}

// TestCopiesRunNothingOfTheImage: class 4 (CVE-2019-14271, CVE-2026-41567) and 3 (CVE-2022-1227): cp in both directions, of compressed
// archives too, top, export and commit execute and load nothing that the image has.
func TestCopiesRunNothingOfTheImage(t *testing.T) {
	h := newHostile(t)
	image := h.image("trojans", map[string]any{"User": "web"}, trojans(h.out)...)
	running := h.background(image, "sleep", "1000")
	stopped := h.must("wherry", "create", image, "true")
	t.Cleanup(func() { h.must("wherry", "rm", "-v", stopped) })
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	ok(t, os.WriteFile(file, []byte("text\n"), 0o644))
	plain := layerOf(piece{name: "unpacked", content: "from an archive"})
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	ok(t, ignoreShort(w.Write(plain)), w.Close())
	streams := map[string][]byte{"tar": plain, "tar.gz": packed.Bytes(), "tar.xz": []byte("\xfd7zXZ\x00\x00\x04\xe6\xd6\xb4\x46")}
	for name, b := range streams {
		ok(t, os.WriteFile(filepath.Join(dir, name), b, 0o644))
	}
	for _, client := range []string{"wherry", "docker"} {
		for _, c := range []string{running, stopped} {
			h.must(client, "cp", file, c+":/tmp/")
			h.must(client, "cp", "-a", file, c+":/tmp/archived")
			h.must(client, "cp", c+":/tmp/file", filepath.Join(dir, "back"))
			h.must(client, "cp", c+":/etc", filepath.Join(dir, client+c[:12]))
			for name := range streams {
				out, err := shared.engine.run("sh", "-c", `PATH="$1:$PATH"; "$2" cp - "$3":/tmp <"$4"`, "sh", shared.bin, client, c, filepath.Join(dir, name))
				if refused := err != nil; refused != (name == "tar.xz") {
					t.Errorf("%s of a %s: %v %s", client, name, err, out)
				}
			}
			h.must(client, "export", "-o", filepath.Join(dir, "export"), c)
			h.must(client, "commit", c, "hostile/committed:1")
		}
		h.must(client, "top", running)
	}
	for _, c := range []string{running, stopped} {
		if diff := h.must("wherry", "diff", c); strings.Contains(diff, "pwned") || !strings.Contains(diff, "unpacked") {
			t.Errorf("in the container: %s", diff)
		}
	}
}

// TestCopiesWhileTheContainerSwaps: class 4 (CVE-2018-15664): copies in and out through a folder that the container exchanges for a link to
// the outside all the time.
func TestCopiesWhileTheContainerSwaps(t *testing.T) {
	h := newHostile(t)
	image := h.image("swap", nil)
	script := "mkdir -p /v/real; echo inside >/v/real/secret; ln -s " + h.out + " /v/swap; exec probe swap /v/real /v/swap"
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	ok(t, os.WriteFile(file, []byte("put there\n"), 0o644))
	for _, way := range [][]string{nil, {"--userns=host", "-v", "/v"}} {
		c := h.background(append(append([]string{}, way...), image, "sh", "-c", script)...)
		ok(t, eventuallyLogs(h, c, "swapping: true"))
		through := 0
		for n := range 40 {
			client := []string{"wherry", "docker"}[n%2]
			if _, code := h.run(client, "cp", file, c+":/v/real/secret"); code == 0 {
				through++
			}
			_, _ = h.run(client, "cp", file, c+":/v/real/made")
			back := filepath.Join(dir, "back")
			_, _ = h.run(client, "cp", c+":/v/real/secret", back)
			_, _ = h.run(client, "cp", c+":/v", back+"-tree")
			ok(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
				if err != nil || !d.Type().IsRegular() {
					return err
				}
				b, err := os.ReadFile(path)
				if strings.Contains(string(b), "canary") {
					t.Errorf("%s has brought %s out of the host", client, path)
				}
				return err
			}))
			ok(t, os.RemoveAll(back), os.RemoveAll(back+"-tree"))
			h.intact()
		}
		if through == 0 {
			t.Error("no copy came through: nothing was tried")
		}
	}
}
