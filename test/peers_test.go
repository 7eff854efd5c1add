package test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestPeersRunContainersThroughOar: Debian's Podman, Docker's engine (with containerd and its shim) and containerd's own client take oar
// for runc.
func TestPeersRunContainersThroughOar(t *testing.T) {
	both := "run by 13\nrun: 7\nexecutable file not found\nno such: 127\n"
	limited := "unhealthy\nhealthy\n1\nbegun\nasked\n5\nrm: 0\n"
	wants := map[string]string{
		"podman":  both + "further\nexec: 3\n/dev/pts/0\nexec -t: 0\n67108864\npaused\n137\nrunning\nrm: 0\n" + limited + "podman-init\n",
		"dockerd": both + "from outside\nstdin: 0\nfurther\nexec: 3\n67108864\npaused\n137\nrunning\nrm: 0\n" + limited + "docker-init\n/dev/pts/0\n-t: 0\n",
		"containerd": "run by 0\nrun: 7\nexecutable file not found\n/dev/pts/0\n-t: 0\ndetached: 0, RUNNING\n67108864\nfurther, there\nexec: 3\n" +
			"executable file not found\n1\n1\nPAUSED\nRUNNING\nSTOPPED\ndelete: 0\nRUNNING\ngone: 0, 0\n" +
			"event create\nevent start\nevent exec-added\nevent exec-started\nevent paused\nevent resumed\nevent exit\nevent delete\n",
	}
	for name, want := range wants {
		t.Run(name, func(t *testing.T) { runPeer(t, name, name, want) })
	}
}

// TestRootlessPodmanRunsContainersThroughOar: the same for a user who is not root, with subordinate ids.
func TestRootlessPodmanRunsContainersThroughOar(t *testing.T) {
	stored := ":\nrun by 0,0 1 1,1 200000 65536, run: 7\n"
	runPeer(t, "podman", "podman-rootless", "vfs"+stored+"overlay"+stored+"33:33\nnetwork: 0\n1,0 1 1,1 0 1,2 2 65535,1, keep-id: 0\n"+
		"executable file not found\nno such: 127\nthe host's processes\nprivileged: 0\nfurther\nexec: 3\n33\n/dev/pts/0\nexec -t: 0\n137\nrunning\nrm: 0\n",
		"--pid", "--fork", "--kill-child")
}

// TestImagesGoToPeersAndBack: archives and layouts in every format that both know, and lists of manifests through a registry.
func TestImagesGoToPeersAndBack(t *testing.T) {
	runPeer(t, "podman", "formats", "to podman\n1\namd64 1\n1\namd64 1\n1\namd64 1\n1\namd64 1\n"+
		"from podman\nLoaded image: busybox:1\nLoaded image: busybox:1\nLoaded image: busybox:1\nruns here\n"+
		"to docker\nLoaded image: two:1\nruns there\nLoaded image: two:1\nruns there\n"+
		"from docker\nLoaded image: busybox:1\nLoaded image: old:1\nruns here\n"+
		"through a registry\n1\n1\nruns there\n127.0.0.1:5000/two:1\n\"architecture\":\"amd64\"\n\"architecture\":\"arm64\"\n127.0.0.1:5000/two:1\narm64\n127.0.0.1:5000/theirs:1\narm64\n\"architecture\":\"amd64\"\n\"architecture\":\"arm64\"\n2\n")
}

// runPeer has a script of testdata/peers run containers with a peer, in namespaces of its own.
func runPeer(t *testing.T, peer, script, want string, namespaces ...string) {
	t.Helper()
	peers := "/var/tmp/wherry-bench/bin" // where bench/peers.sh unpacks them
	if _, err := os.Stat(filepath.Join(peers, peer)); err != nil {
		t.Fatalf("%v: run `make tools`, which fetches it", err)
	}
	dir, err := os.MkdirTemp("", "peer") // a short path: where its sockets' are too long, conmon misses ends and Podman waits 20 s for each
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	dir += "/d"
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	args := append([]string{"--mount", "--net", "--propagation", "private"}, namespaces...)
	args = append(args, filepath.Join(repository(), "test/testdata/peers", script+".sh"), shared.bin+"/oar", shared.images+"/busybox-1.tar", dir)
	cmd := exec.CommandContext(t.Context(), "unshare", args...)
	cmd.Env = append(os.Environ(), "PATH="+peers+":"+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	if got := strings.ReplaceAll(string(out), "\r", ""); err != nil || got != want {
		t.Errorf("%v, it printed:\n%s\nwant:\n%s", err, got, want)
	}
}
