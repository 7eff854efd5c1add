package testcontainers

import (
	"fmt"
	"testing"

	tc "github.com/testcontainers/testcontainers-go"
	"github.com/testcontainers/testcontainers-go/network"
)

// TestLeft makes one of each thing, says so and waits to be killed: the reaper is to remove them.
func TestLeft(t *testing.T) {
	n, err := network.New(t.Context())
	check(t, err)
	_, err = tc.GenericContainer(t.Context(), tc.GenericContainerRequest{Started: true, ContainerRequest: tc.ContainerRequest{
		FromDockerfile: tc.FromDockerfile{Context: buildContext(t), Dockerfile: "Dockerfile.web", BuildArgs: map[string]*string{"BASE": ptr(image), "WHO": ptr("nobody")}},
		Networks:       []string{n.Name},
		Mounts:         tc.Mounts(tc.VolumeMount("testcontainers-left", "/data")),
	}})
	check(t, err)
	fmt.Printf("session %s\n", tc.SessionID())
	select {}
}

func ptr(s string) *string { return &s }
