package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/moby/moby/client"
)

// reap removes whatever meets one of the sets of filters: containers first, as they hold the rest.
func reap(ctx context.Context, engine *client.Client, wanted map[string]client.Filters) error {
	var errs []error
	note := func(_ any, err error) { errs = append(errs, err) }
	for _, f := range wanted {
		containers, err := engine.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: f})
		errs = append(errs, err)
		for _, c := range containers.Items {
			note(engine.ContainerRemove(ctx, c.ID, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true}))
		}
		networks, err := engine.NetworkList(ctx, client.NetworkListOptions{Filters: f})
		errs = append(errs, err)
		for _, n := range networks.Items {
			note(engine.NetworkRemove(ctx, n.ID, client.NetworkRemoveOptions{}))
		}
		volumes, err := engine.VolumeList(ctx, client.VolumeListOptions{Filters: f})
		errs = append(errs, err)
		for _, v := range volumes.Items {
			note(engine.VolumeRemove(ctx, v.Name, client.VolumeRemoveOptions{Force: true}))
		}
		images, err := engine.ImageList(ctx, client.ImageListOptions{Filters: f})
		errs = append(errs, err)
		for _, i := range images.Items {
			note(engine.ImageRemove(ctx, i.ID, client.ImageRemoveOptions{Force: true, PruneChildren: true}))
		}
		fmt.Printf("Removed %d container(s), %d network(s), %d volume(s), %d image(s)\n", len(containers.Items), len(networks.Items), len(volumes.Items), len(images.Items))
	}
	return errors.Join(errs...)
}
