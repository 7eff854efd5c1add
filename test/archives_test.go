package test

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// busyboxLayer has a shell and what tests call by it.
func busyboxLayer(t *testing.T) []byte {
	t.Helper()
	b, err := os.ReadFile("/bin/busybox")
	ok(t, err)
	pieces := []piece{{name: "bin/", kind: '5'}, {name: "tmp/", kind: '5', mode: 0o1777}, {name: "bin/busybox", content: string(b)}}
	for _, a := range strings.Fields("sh cat echo sha256sum stat rm true sleep head dd find wc mkdir hostname httpd nslookup") {
		pieces = append(pieces, symlink("bin/"+a, "busybox"))
	}
	return layerOf(pieces...)
}

// imageArchive writes a docker-archive of an image with these layers, and returns where.
func imageArchive(t *testing.T, name string, layers ...[]byte) string {
	t.Helper()
	var diffs, names []string
	var archive []piece
	for i, l := range layers {
		diffs, names = append(diffs, fmt.Sprintf("sha256:%x", sha256.Sum256(l))), append(names, fmt.Sprintf("%d.tar", i))
		archive = append(archive, piece{name: names[i], content: string(l)})
	}
	c, err := json.Marshal(map[string]any{"architecture": "amd64", "os": "linux", "config": map[string]any{"Env": []string{"PATH=/bin"}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": diffs}})
	ok(t, err)
	m, err := json.Marshal([]map[string]any{{"Config": "config.json", "RepoTags": []string{name}, "Layers": names}})
	ok(t, err)
	archive = append(archive, piece{name: "config.json", content: string(c)}, piece{name: "manifest.json", content: string(m)})
	file := filepath.Join(t.TempDir(), "image.tar")
	ok(t, os.WriteFile(file, layerOf(archive...), 0o644))
	return file
}
