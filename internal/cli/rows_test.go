package cli

import (
	"bytes"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/image"
)

// TestUsedImagesInTheTree: an image is in use where one of its platforms is; engines count the containers of the whole only when asked to.
func TestUsedImagesInTheTree(t *testing.T) {
	var out bytes.Buffer
	err := printImageTree(&out, []image.Summary{{ID: "sha256:12", RepoTags: []string{"web:1"}, Containers: -1, Manifests: []image.ManifestSummary{
		{ID: "sha256:34", Kind: image.ManifestKindImage, Available: true, ImageData: &image.ImageProperties{Containers: []string{"c"}}},
	}}}, false)
	if err != nil || strings.Count(out.String(), "  yes\n") != 2 {
		t.Errorf("%v\n%s", err, out.String())
	}
}

// TestPolicyShowLines: rules of a file of JSON have no lines.
func TestPolicyShowLines(t *testing.T) {
	host := serveOn(t, recording{"/wherry/policy": `{"File":"/p.json","Rules":[{"Action":"accept"},{"Action":"reject","Line":3}]}`})
	out, stderr, status := wherry(t, host, "policy", "show")
	want := "/p.json\nSCOPE       ACTION    SIGNERS   LINE\n(default)   accept    -         -\n(local)     reject    -         3\n"
	if status != 0 || out != want {
		t.Errorf("exit %d: %s\n%s", status, stderr, out)
	}
}

// TestPortsHaveFormats: the list of all published ports is printed as other lists are.
func TestPortsHaveFormats(t *testing.T) {
	host := serveOn(t, recording{"/wherry/ports": `[{"Name":"web","Address":"127.0.0.1","First":8080,"Last":8080,"Proto":"tcp","To":"172.17.0.2:80"}]`})
	for args, want := range map[string]string{
		"":                                    "PORT                 CONTAINER   GOES TO         REACHED FROM\n127.0.0.1:8080/tcp   web         172.17.0.2:80   this machine\n",
		"-q":                                  "127.0.0.1:8080/tcp\n",
		"--format json":                       `{"Container":"web","GoesTo":"172.17.0.2:80","Port":"127.0.0.1:8080/tcp","ReachedFrom":"this machine"}` + "\n",
		"--format {{.Container}}={{.GoesTo}}": "web=172.17.0.2:80\n",
	} {
		out, stderr, status := wherry(t, host, append([]string{"ports"}, strings.Fields(args)...)...)
		if status != 0 || out != want {
			t.Errorf("%s: exit %d: %q, want %q\n%s", args, status, out, want, stderr)
		}
	}
}
