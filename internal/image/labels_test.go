package image

import (
	"context"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	digest "github.com/opencontainers/go-digest"
)

// countedStore has one blob, and counts what is written.
type countedStore struct {
	content.Store
	labels map[string]string
	writes int
}

func (c *countedStore) Info(context.Context, digest.Digest) (content.Info, error) {
	return content.Info{Labels: c.labels}, nil
}

func (c *countedStore) Update(_ context.Context, info content.Info, _ ...string) (content.Info, error) {
	c.writes++
	return info, nil
}

func TestLabelsThatAreThereAreNotWritten(t *testing.T) {
	for name, row := range map[string]struct {
		labels map[string]string
		fields []string
		writes int
	}{
		"the same":           {map[string]string{"source": "a"}, []string{"labels.source"}, 0},
		"another":            {map[string]string{"source": "b"}, []string{"labels.source"}, 1},
		"one more":           {map[string]string{"source": "a", "more": "x"}, []string{"labels.source", "labels.more"}, 1},
		"one is taken away":  {nil, []string{"labels.source"}, 1},
		"empty is not there": {map[string]string{"none": ""}, []string{"labels.none"}, 1},
		"all labels":         {map[string]string{"source": "a"}, []string{"labels"}, 1},
		"everything":         {map[string]string{"source": "a"}, nil, 1},
	} {
		c := &countedStore{labels: map[string]string{"source": "a"}}
		if _, err := (labelled{c}).Update(t.Context(), content.Info{Labels: row.labels}, row.fields...); err != nil || c.writes != row.writes {
			t.Errorf("%s: %d writes, %v", name, c.writes, err)
		}
	}
}
