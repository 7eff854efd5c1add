package image

import (
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

// TestAttestations: what was stated of a platform's image, chosen by what it states, with its words where they are asked for.
func TestAttestations(t *testing.T) {
	s := open(t)
	l, _ := severalPlatforms(t, "docker.io/team/app:1")
	if _, err := loaded(t, s, l.tar(), TransferOptions{}); err != nil {
		t.Fatal(err)
	}
	of := l.image("arm64").Digest.String()
	list, err := Attestations(t.Context(), s, "team/app:1", AttestationOptions{Platform: platform("arm64"), Statements: true})
	if err != nil || len(list) != 1 {
		t.Fatalf("%v %v", list, err)
	}
	if a := list[0]; a.PredicateType != "https://slsa.dev/provenance/v1" || a.Statement == nil || !strings.Contains(string(*a.Statement), of) || a.Descriptor.Size == 0 {
		t.Errorf("%+v", a)
	}
	list, err = Attestations(t.Context(), s, "team/app:1", AttestationOptions{Types: []string{"x", "https://slsa.dev/provenance/v1"}})
	if err != nil || len(list) != 1 || list[0].Statement != nil {
		t.Errorf("chosen by type: %v %v", list, err)
	}
	list, err = Attestations(t.Context(), s, "team/app:1", AttestationOptions{Types: []string{"https://spdx.dev/Document"}})
	if err != nil || list == nil || len(list) != 0 {
		t.Errorf("of another type: %v %v", list, err)
	}
	if _, err := Attestations(t.Context(), s, "team/app:1", AttestationOptions{Platform: platform("s390x")}); !errdefs.IsNotFound(err) {
		t.Errorf("a platform that is not there: %v", err)
	}
}
