package image

import (
	"archive/tar"
	"bytes"
	"io"
	"net/http"
	"sync"
	"testing"
)

// writerFunc is a writer of one function.
type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

// TestRemovedInTheMiddle: what is being saved, pushed or extracted is so to its end, though it is removed and pruned when that has begun.
func TestRemovedInTheMiddle(t *testing.T) {
	const tarOf = "a file of the artifact"
	for name, do := range map[string]func(s *Service, host string, w io.Writer) error{
		"save": func(s *Service, host string, w io.Writer) error {
			return s.Save(t.Context(), []string{host + "/team/app"}, SaveOptions{}, w)
		},
		"push": func(s *Service, host string, _ io.Writer) error {
			return s.Push(t.Context(), host+"/team/app:1", TransferOptions{})
		},
		"push all": func(s *Service, host string, _ io.Writer) error {
			return s.Push(t.Context(), host+"/team/app", TransferOptions{AllTags: true})
		},
		"push a list": func(s *Service, host string, _ io.Writer) error {
			_, err := Lists{s}.Push(t.Context(), host+"/team/list:1", Place{}, TransferOptions{})
			return err
		},
		"push an artifact": func(s *Service, host string, _ io.Writer) error {
			return Artifacts{s}.Push(t.Context(), Place{Name: host + "/team/notes:1"}, TransferOptions{})
		},
		"extract": func(s *Service, host string, w io.Writer) error {
			return Artifacts{s}.Extract(t.Context(), host+"/team/notes:1", w)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			var once sync.Once
			var armed bool
			var registry string
			remove := func() {
				if !armed {
					return
				}
				once.Do(func() {
					for _, name := range []string{"list:1", "notes:1", "app:2", "app:1"} {
						if _, err := s.Remove(t.Context(), registry+"/team/"+name, RemoveOptions{Force: true}); err != nil {
							t.Error(err)
						}
					}
					if _, err := s.Prune(t.Context(), map[string]map[string]bool{"dangling": {"false": true}}); err != nil {
						t.Error(err)
					}
				})
			}
			host := realRegistry(t, func(next http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					remove()
					next.ServeHTTP(w, r)
				})
			})
			registry = host
			base := imported(t, s, host+"/team/app:1", file1("a", "one"))
			if _, err := s.Commit(t.Context(), layer(t, file1("b", "two")), CommitOptions{Parent: base, Ref: host + "/team/app:2", Config: base.Config.Config}); err != nil {
				t.Fatal(err)
			}
			l := Lists{s}
			if err := l.Create(t.Context(), host+"/team/list:1", false); err != nil {
				t.Fatal(err)
			}
			if _, err := l.Add(t.Context(), host+"/team/list:1", Listed{Image: host + "/team/app:2"}); err != nil {
				t.Fatal(err)
			}
			if _, err := (Artifacts{s}).Add(t.Context(), layer(t, file1("notes", tarOf)), AddOptions{Name: host + "/team/notes:1"}); err != nil {
				t.Fatal(err)
			}
			armed = true
			var out bytes.Buffer
			if err := do(s, host, writerFunc(func(b []byte) (int, error) { remove(); return out.Write(b) })); err != nil {
				t.Fatal(err)
			}
			if left := here(t, s); left != "" {
				t.Errorf("there still is %s", left)
			}
			if out.Len() > 0 && name == "save" {
				if err := s.Load(t.Context(), &out, TransferOptions{}); err != nil || here(t, s) == "" {
					t.Errorf("the archive: %v", err)
				}
			} else if out.Len() > 0 {
				if h, err := tar.NewReader(&out).Next(); err != nil || h.Name != "notes" || h.Size != int64(len(tarOf)) {
					t.Errorf("%+v %v", h, err)
				}
			}
		})
	}
}
