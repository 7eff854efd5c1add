package image

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"wherry.dev/wherry/internal/snapshot"
	"wherry.dev/wherry/internal/trust"
)

// TestEveryDoorIsAsked: what the policy does not let be run does not come in by a file either, and nothing of it stays.
func TestEveryDoorIsAsked(t *testing.T) {
	host := realRegistry(t, nil)
	maker := open(t)
	imported(t, maker, host+"/team/app:1", file1("a", "one"))
	if err := maker.Push(t.Context(), host+"/team/app:1", TransferOptions{}); err != nil {
		t.Fatal(err)
	}
	var archive bytes.Buffer
	if err := maker.Save(t.Context(), []string{host + "/team/app:1"}, SaveOptions{}, &archive); err != nil {
		t.Fatal(err)
	}
	doors := map[string]func(s *Service) error{
		"load": func(s *Service) error {
			return s.Load(t.Context(), bytes.NewReader(archive.Bytes()), TransferOptions{})
		},
		"import": func(s *Service) error {
			_, err := s.Import(t.Context(), layer(t, file1("a", "one")), ImportOptions{Ref: host + "/team/app:1"})
			return err
		},
		"copy": func(s *Service) error {
			_, err := Manifests{s}.CopyIn(t.Context(), bytes.NewReader(archive.Bytes()), CopyOptions{To: Place{Name: host + "/copied/app:1"}})
			return err
		},
	}
	team := "\n[[rule]]\nscope = \"" + host + "/team\"\naction = "
	for rules, refused := range map[string]bool{
		`default = "reject"`:                                             false,
		"default = \"accept\"\nlocal = \"reject\"":                       true,
		"default = \"accept\"\nlocal = \"as-named\"" + team + `"reject"`: true,
		"default = \"reject\"\nlocal = \"as-named\"" + team + `"accept"`: false,
		"oops": true,
	} {
		for door, enter := range doors {
			t.Run(strings.ReplaceAll(rules, "\n", " ")+" "+door, func(t *testing.T) {
				file := filepath.Join(t.TempDir(), "policy.toml")
				if err := os.WriteFile(file, []byte(rules), 0o600); err != nil {
					t.Fatal(err)
				}
				s := openAs(t, snapshot.EROFS)
				s.gate.checker = trust.New(trust.Options{Policy: file})
				err := enter(s)
				if isRefusal(err) != refused || !refused && err != nil {
					t.Errorf("%v", err)
				}
				if left, _ := filepath.Glob(filepath.Join(s.root, "content/blobs/sha256/*")); refused && len(left) > 0 {
					t.Errorf("%d blobs have stayed", len(left))
				}
			})
		}
	}
}
