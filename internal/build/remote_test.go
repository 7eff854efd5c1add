package build

import (
	"errors"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"wherry.dev/wherry/internal/api/docker"
)

// TestRemoteContexts: what is no address is told at once, and a server's refusal has its class.
func TestRemoteContexts(t *testing.T) {
	for remote, good := range map[string]bool{
		"": true, docker.ClientSession: true, "http://h/x.tar": true, "https://h/Dockerfile": true, "https://h/a.git#main:sub": true, "git://h/x.git": true, "git@h:a/b.git": true,
		"ssh://git@h/x": true, "github.com/a/b": true, "ftp://h/x": false, "/a/folder": false, "notaurl": false, "file:///etc": false,
	} {
		if err := checkRemote(remote); (err == nil) != good || err != nil && (!errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "("+remote+") could not be recognized as URL")) {
			t.Errorf("%q: %v", remote, err)
		}
	}
	const says = "failed to solve: failed to read downloaded context: failed to load cache key: invalid response status "
	for status, is := range map[string]func(error) bool{"404": errdefs.IsNotFound, "403": errdefs.IsPermissionDenied, "401": errdefs.IsUnauthorized, "400": errdefs.IsInvalidArgument,
		"503": func(err error) bool { return strings.HasSuffix(err.Error(), says+"503") }} {
		if err := explainRemote(errors.New(says+status), "http://h/x"); !is(err) || !strings.Contains(err.Error(), "remote context http://h/x: ") || !strings.Contains(err.Error(), "status "+status) {
			t.Errorf("%s: %v", status, err)
		}
	}
	other := errors.New("failed to load cache key: something else")
	if err := explainRemote(other, "http://h/x"); err != other {
		t.Errorf("%v", err)
	}
}
