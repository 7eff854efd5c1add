package image

import (
	"context"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
)

// labelled is a store that is not written to where it already says what it is told. Each note waits for the disk: images are pinned
// again whenever they are asked for, and BuildKit notes at every build where each blob of a base image is from.
type labelled struct{ content.Store }

// Update changes what differs.
func (l labelled) Update(ctx context.Context, info content.Info, fields ...string) (content.Info, error) {
	if len(fields) > 0 {
		if have, err := l.Info(ctx, info.Digest); err == nil && says(have.Labels, info.Labels, fields) {
			return have, nil
		}
	}
	return l.Store.Update(ctx, info, fields...)
}

// says compares the labels that fields name, as labels.<key>.
func says(have, want map[string]string, fields []string) bool {
	for _, f := range fields {
		key, ok := strings.CutPrefix(f, "labels.")
		if !ok {
			return false
		}
		now, there := have[key]
		then, wanted := want[key]
		if now != then || there != wanted {
			return false
		}
	}
	return true
}
