package cli

import (
	"encoding/json"
	"strings"
	"testing"
)

// TestStoreReportCounts: one of a thing is one.
func TestStoreReportCounts(t *testing.T) {
	var out strings.Builder
	var l storeLine
	if err := json.Unmarshal([]byte(`{"Report":{"Blobs":4,"Layers":1,"Images":2}}`), &l); err != nil {
		t.Fatal(err)
	}
	if err := l.end(&out); err != nil || out.String() != "4 blobs (0B), 1 unpacked layer and 2 images looked at: 0 damaged, 0 mended\n" {
		t.Errorf("%q, %v", out.String(), err)
	}
}
