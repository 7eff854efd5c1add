package image

import (
	"os"
	"path/filepath"
	"testing"
	"time"
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

// TestTransfersLeaveTheTimeOfATag: programs compare what inspect says before and after a pull, to see whether the image is another one.
func TestTransfersLeaveTheTimeOfATag(t *testing.T) {
	a := open(t)
	name := realRegistry(t, nil) + "/team/app:1"
	imported(t, a, name, file1("a", "1"))
	said := func() time.Time {
		t.Helper()
		i, err := a.Inspect(t.Context(), name, nil)
		if err != nil {
			t.Fatal(err)
		}
		return i.Metadata.LastTagTime
	}
	first := said()
	for range 2 {
		if err := a.Push(t.Context(), name, TransferOptions{}); err != nil {
			t.Fatal(err)
		}
		if err := a.Pull(t.Context(), name, TransferOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if again := said(); first.IsZero() || !again.Equal(first) {
		t.Errorf("tagged at %v, and after transfers of the same image at %v", first, again)
	}
	imported(t, a, name, file1("a", "2"))
	if moved := said(); !moved.After(first) {
		t.Errorf("tagged at %v, and with another image at %v", first, moved)
	}
}
