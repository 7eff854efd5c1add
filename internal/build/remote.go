package build

import (
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/buildkit/frontend/dockerfile/dfgitutil"

	"wherry.dev/wherry/internal/api/docker"
)

// checkRemote refuses what is no address of a context: BuildKit would look for a folder of that name with a client that has none.
func checkRemote(remote string) error {
	if remote == "" || remote == docker.ClientSession || strings.HasPrefix(remote, "http://") || strings.HasPrefix(remote, "https://") {
		return nil
	}
	if _, git, err := dfgitutil.ParseGitRef(remote); git {
		if err != nil {
			return fmt.Errorf("remote %s: %v: %w", remote, err, errInvalid)
		}
		return nil
	}
	return fmt.Errorf("remoteURL (%s) could not be recognized as URL: give the address of a git repository, or one with http:// or https:// of an archive or a Dockerfile: %w", remote, errInvalid)
}

// explainRemote says of a server's refusal what it was about. Its status is a text: what BuildKit returns has no class.
func explainRemote(err error, remote string) error {
	_, status, ok := strings.Cut(err.Error(), "failed to read downloaded context: failed to load cache key: invalid response status ")
	if !ok {
		return err
	}
	class := map[string]error{"400": errInvalid, "401": errdefs.ErrUnauthenticated, "403": errdefs.ErrPermissionDenied, "404": errdefs.ErrNotFound}[status]
	if class == nil {
		return fmt.Errorf("error downloading remote context %s: %w", remote, err)
	}
	return fmt.Errorf("error downloading remote context %s: the server answers with status %s: %w", remote, status, class)
}
