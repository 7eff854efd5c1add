package image

import (
	"os"
	"path/filepath"
	"testing"
)

// TestPullOfWhatIsHereWritesLittle: the copy of the names is not made anew, and of the content nothing is noted again.
func TestPullOfWhatIsHereWritesLittle(t *testing.T) {
	a, b := open(t), open(t)
	name := realRegistry(t, nil) + "/team/app:1"
	img := imported(t, a, name, file1("a", "1"))
	if err := a.Push(t.Context(), name, TransferOptions{}); err != nil {
		t.Fatal(err)
	}
	look := func() (os.FileInfo, any) {
		t.Helper()
		if err := b.Pull(t.Context(), name, TransferOptions{}); err != nil {
			t.Fatal(err)
		}
		names, err := os.Stat(filepath.Join(b.root, namesFile))
		if err != nil {
			t.Fatal(err)
		}
		info, err := b.content.Info(in(t.Context()), img.ID)
		if err != nil {
			t.Fatal(err)
		}
		return names, info.UpdatedAt
	}
	names, content := look()
	if again, updated := look(); !os.SameFile(names, again) || updated != content {
		t.Errorf("%v, then %v", content, updated)
	}
	if m, err := MeaningOf(t.Context(), b, name, MeaningOptions{}); err != nil || m.Pulled == nil {
		t.Errorf("%+v %v", m, err)
	}
}
