package cli

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/moby/moby/api/types/image"
)

// order is a word of --sort with what it compares. What is large or new comes last, next to the prompt.
type order[T any] struct {
	name    string
	compare func(a, b T) int
}

// by compares what key takes out of two things.
func by[T any, K cmp.Ordered](name string, key func(T) K) order[T] {
	return order[T]{name, func(a, b T) int { return cmp.Compare(key(a), key(b)) }}
}

func containerOrders() []order[listedContainer] {
	return []order[listedContainer]{
		by("command", func(c listedContainer) string { return c.Command }),
		by("created", func(c listedContainer) int64 { return c.Created }),
		by("id", func(c listedContainer) string { return c.ID }),
		by("image", func(c listedContainer) string { return c.Image }),
		by("names", func(c listedContainer) string { return ownName(c.Summary) }),
		by("size", func(c listedContainer) int64 { return c.SizeRw }),
		by("status", func(c listedContainer) string { return string(c.State) + c.Status }),
	}
}

func imageOrders() []order[image.Summary] {
	return []order[image.Summary]{
		by("created", func(i image.Summary) int64 { return i.Created }),
		by("id", func(i image.Summary) string { return i.ID }),
		by("repository", func(i image.Summary) string { return imageNames(i, false)[0][0] }),
		by("size", func(i image.Summary) int64 { return i.Size }),
		by("tag", func(i image.Summary) string { return imageNames(i, false)[0][1] }),
	}
}

// orders are the words of --sort.
func orders[T any](all []order[T]) string {
	names := make([]string, len(all))
	for i, o := range all {
		names[i] = o.name
	}
	return strings.Join(names, ", ")
}

// orderNamed leaves everything as it comes where no order is asked for.
func orderNamed[T any](all []order[T], name string) (func(a, b T) int, error) {
	for _, o := range all {
		if o.name == name {
			return o.compare, nil
		}
	}
	if name != "" {
		return nil, fmt.Errorf("--sort %s: it can be %s", name, orders(all))
	}
	return func(T, T) int { return 0 }, nil
}
