package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/moby/moby/api/types/network"
	"github.com/spf13/pflag"

	"wherry.dev/wherry/internal/client"
)

// portChange is what --publish and --unpublish ask for.
type portChange struct {
	Publish, Unpublish network.PortMap
	only               bool // nothing else is to be changed
}

func parsePortChange(publish, unpublish []string) (q portChange, err error) {
	add, err := parsePorts(publish, nil)
	if err != nil {
		return q, err
	}
	remove := ports{exposed: network.PortSet{}, bindings: network.PortMap{}}
	for _, s := range unpublish {
		if err := remove.publish(s); err != nil {
			return q, fmt.Errorf("--unpublish %s: %w", s, err)
		}
	}
	q.Publish, q.Unpublish = add.bindings, remove.bindings
	return q, nil
}

// changedOf are those of some flags that were given.
func changedOf(fs *pflag.FlagSet, names ...string) (given []string) {
	for _, name := range names {
		if fs.Changed(name) {
			given = append(given, name)
		}
	}
	return given
}

// post changes a container's ports, where there is something to change.
func (q portChange) post(ctx context.Context, c *client.Client, name string) error {
	if len(q.Publish)+len(q.Unpublish) == 0 {
		return nil
	}
	err := c.Post(ctx, "/wherry"+containerPath(name, "/ports"), nil, q, nil)
	if client.IsNotFound(err) && err.Error() == "page not found" {
		return errors.New("the engine is older than this client, or another's: restart wherryd, or use the client that came with it")
	}
	return err
}
