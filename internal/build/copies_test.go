package build

import "testing"

func TestArchivesByName(t *testing.T) {
	for name, want := range map[string]bool{"/a.tar": true, "/a.tar.gz": true, "b.tgz": true, "/x/c.tar.zst": true, "a.txt": false, "/tar": false, "/context": false} {
		if isArchive(name) != want {
			t.Errorf("%s: %v", name, !want)
		}
	}
}
