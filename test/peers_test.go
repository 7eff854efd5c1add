package test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestPeersRunContainersThroughOar: Debian's Podman and Docker's engine (with containerd and its shim) take oar for runc.
func TestPeersRunContainersThroughOar(t *testing.T) {
	both := "run by 13\nrun: 7\nexecutable file not found\nno such: 127\n"
	wants := map[string]string{
		"podman":  both + "further\nexec: 3\n/dev/pts/0\nexec -t: 0\n67108864\npaused\n137\nrunning\nrm: 0\n",
		"dockerd": both + "from outside\nstdin: 0\nfurther\nexec: 3\n67108864\npaused\n137\nrunning\nrm: 0\n",
	}
	peers := "/var/tmp/wherry-bench/bin" // where bench/peers.sh unpacks them
	for name, want := range wants {
		t.Run(name, func(t *testing.T) {
			if _, err := os.Stat(filepath.Join(peers, name)); err != nil {
				t.Fatalf("%v: run `make tools`, which fetches it", err)
			}
			script := filepath.Join(repository(), "test/testdata/peers", name+".sh")
			cmd := exec.CommandContext(t.Context(), "unshare", "--mount", "--net", "--propagation", "private", script, shared.bin+"/oar", shared.images+"/busybox-1.tar", t.TempDir())
			cmd.Env = append(os.Environ(), "PATH="+peers+":"+os.Getenv("PATH"))
			out, err := cmd.CombinedOutput()
			if got := strings.ReplaceAll(string(out), "\r", ""); err != nil || got != want {
				t.Errorf("%v, it printed:\n%s\nwant:\n%s", err, got, want)
			}
		})
	}
}
