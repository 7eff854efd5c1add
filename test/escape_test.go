package test

import (
	"archive/tar"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// ways are how much a container may: with users of its own, with the host's, with everything.
func ways() map[string][]string {
	return map[string][]string{"own users": nil, "host's users": {"--userns=host"}, "privileged": {"--privileged"}}
}

// TestImageTargetsStayInside: class 3: wherever an image has links, what the engine mounts, masks, makes, copies and enters stays inside,
// whether the container comes to run or is refused.
func TestImageTargetsStayInside(t *testing.T) {
	h := newHostile(t)
	up := strings.Repeat("../", 30) + h.out[1:]
	file := filepath.Join(t.TempDir(), "file")
	ok(t, os.WriteFile(file, []byte("from the host\n"), 0o644))
	volumes := func(names ...string) map[string]any {
		v := map[string]any{}
		for _, n := range names {
			v[n] = map[string]any{}
		}
		return map[string]any{"Volumes": v}
	}
	rows := map[string]struct {
		pieces []piece
		config map[string]any
		args   []string
	}{
		"dev":               {pieces: []piece{symlink("dev", h.out+"/dev")}},
		"dev-upwards":       {pieces: []piece{symlink("dev", up+"/dev")}, args: []string{"-t"}},
		"proc":              {pieces: []piece{symlink("proc", h.out+"/proc")}},
		"sys":               {pieces: []piece{symlink("sys", up+"/sys")}},
		"etc":               {pieces: []piece{symlink("etc", h.out+"/etc")}},
		"hosts":             {pieces: []piece{symlink("etc/hosts", h.out+"/hosts"), symlink("etc/resolv.conf", up+"/hosts"), symlink("etc/hostname", "/proc/1/root"+h.out+"/hosts")}},
		"magic":             {pieces: []piece{symlink("etc", "/proc/self/root"+h.out+"/etc")}},
		"working-directory": {pieces: []piece{symlink("work", h.out+"/work")}, config: map[string]any{"WorkingDir": "/work/deeper"}},
		"upwards":           {config: map[string]any{"WorkingDir": "/" + up + "/work/deeper"}},
		"volume":            {pieces: []piece{symlink("data", h.out)}, config: volumes("/data/made", "/data/etc")},
		"volume-upwards":    {config: volumes("/../../" + h.out + "/made")},
		"volume-on-proc":    {pieces: []piece{symlink("covert", "/proc")}, config: volumes("/covert/sys")},
		"init":              {pieces: []piece{symlink("sbin", h.out)}, args: []string{"--init"}},
		"device":            {pieces: []piece{symlink("var/lib", h.out)}, args: []string{"--device", "/dev/null:/var/lib/node"}},
		"bind":              {pieces: []piece{symlink("var/lib", h.out)}, args: []string{"-v", file + ":/var/lib/made/file", "-v", file + ":/var/lib/hosts"}},
		"tmpfs":             {pieces: []piece{symlink("var/lib", h.out)}, args: []string{"--tmpfs", "/var/lib/etc", "--shm-size", "1m"}},
	}
	ran := 0
	for name, row := range rows {
		image := h.image(name, row.config, row.pieces...)
		for way, options := range ways() {
			args := append(append([]string{"run", "--rm"}, options...), row.args...)
			out, code := h.run("wherry", append(args, image, "sh", "-c", "cat "+h.out+"/secret; ls / /etc /dev; echo inside >/written && echo whole")...)
			if strings.Contains(out, "canary") {
				t.Errorf("%s, %s: the container sees outside: %q", name, way, out)
			}
			if code == 0 && strings.Contains(out, "whole") {
				ran++
			}
			h.intact()
		}
	}
	if ran < len(rows)*2 {
		t.Errorf("%d of %d ran: little was tried", ran, 3*len(rows))
	}
}

// TestWorkingDirectoriesLeadNowhere: class 2 (CVE-2024-21626): no working directory of an image, a run or an exec leads to what the runtime
// has open.
func TestWorkingDirectoriesLeadNowhere(t *testing.T) {
	h := newHostile(t)
	base := h.image("base", nil)
	look := []string{"sh", "-c", "pwd; cat ../../../../../../../../.." + h.out + "/secret; echo ran"}
	tryAll := func(what, client string, args ...string) {
		t.Helper()
		if out, code := h.run(client, append(args, look...)...); code < 125 || code > 127 || strings.Contains(out, "canary") || strings.Contains(out, "ran\n") {
			t.Errorf("%s by %s: exit code %d, %q", what, client, code, out)
		}
	}
	c := h.background("--userns=host", base, "sleep", "1000")
	for n := 3; n <= 30; n++ {
		dir := fmt.Sprintf("/proc/self/fd/%d", n)
		client := []string{"wherry", "docker"}[n%2]
		tryAll("exec -w "+dir, client, "exec", "-w", dir, c)
		tryAll("run -w "+dir, client, "run", "--rm", "-w", dir, base)
		if n < 12 {
			tryAll("WORKDIR "+dir, client, "run", "--rm", "--userns=host", h.image(fmt.Sprint("fd-", n), map[string]any{"WorkingDir": dir}))
		}
	}
	for _, dir := range []string{"/proc/1/root", "/proc/self/cwd/../..", "/proc/self/fd/7/../../.."} {
		out, _ := h.run("wherry", append([]string{"exec", "-w", dir, c}, look...)...)
		if strings.Contains(out, "canary") {
			t.Errorf("exec -w %s: %q", dir, out)
		}
	}
}

// TestEngineBinariesStay: class 1 (CVE-2019-5736): a container writes to every program that it finds by /proc/PID/exe, and looks for the
// host's files behind each process, while execs and health checks of its image execute the runtime by /proc/self/exe.
func TestEngineBinariesStay(t *testing.T) {
	h := newHostile(t)
	check := map[string]any{"Healthcheck": map[string]any{"Test": []string{"CMD", "/proc/self/exe", "version"}, "Interval": 50 * time.Millisecond}}
	image := h.image("overwrite", check)
	for _, way := range [][]string{nil, {"--userns=host"}} {
		c := h.background(append(append([]string{"--tmpfs", "/tmp"}, way...), image, "probe", "overwrite", h.out+"/secret")...)
		for n := range 60 {
			if out := h.must([]string{"wherry", "docker"}[n%2], "exec", c, "/proc/self/exe", "version"); !strings.Contains(out, " version ") {
				t.Fatalf("the container does not run the runtime's binary, the test proves nothing: %q", out)
			}
		}
		if health := h.must("wherry", "inspect", "-f", "{{.State.Health.Status}}", c); health != "healthy" {
			t.Errorf("health checks do not run the runtime's binary: %s", health)
		}
		h.must("wherry", "exec", c, "touch", "/tmp/stop")
		h.must("wherry", "wait", c)
		out := h.must("wherry", "logs", c)
		if !strings.Contains(out, "written 0 leaked 0") || strings.Contains(out, "held 0") {
			t.Errorf("%v: %s", way, out)
		}
	}
}

// TestVolumesThatSwap: class 3 (CVE-2021-30465, CVE-2021-25741): folders of a shared volume, in which others are mounted, that somebody
// exchanges for links to the outside all the time.
func TestVolumesThatSwap(t *testing.T) {
	h := newHostile(t)
	base := h.image("base", nil)
	h.must("wherry", "volume", "create", "swapped")
	t.Cleanup(func() { h.must("wherry", "volume", "rm", "swapped") })
	at := h.must("wherry", "volume", "inspect", "-f", "{{.Mountpoint}}", "swapped")
	ok(t, os.MkdirAll(at+"/a/etc", 0o777), os.Symlink(h.out, at+"/b"))
	file := filepath.Join(t.TempDir(), "file")
	ok(t, os.WriteFile(file, []byte("from the host\n"), 0o644))
	stop := exchange(at+"/a", at+"/b")
	for n := range 30 {
		args := []string{"run", "--rm", "-v", "swapped:/vol", "-v", file + ":/vol/a/etc/made", "--tmpfs", "/vol/b/etc", "-w", "/vol/a/etc",
			"--mount", "type=volume,source=swapped,destination=/sub,volume-subpath=a/etc"}
		args = append(append(args, ways()[[]string{"own users", "host's users"}[n%2]]...), base, "cat", "/vol/a/secret", "/vol/b/secret", "/vol/a/etc/secret", "../secret", "/sub/secret", "/sub/hosts")
		if out, _ := h.run([]string{"wherry", "docker"}[n/2%2], args...); strings.Contains(out, "canary") {
			t.Fatalf("the container sees outside: %q", out)
		}
	}
	if n := stop(); n < 100 {
		t.Errorf("%d exchanges: nothing was tried", n)
	}
}

// exchange swaps two names all the time until it is told to stop; it tells how often it did.
func exchange(a, b string) (stop func() int) {
	end, done, n := make(chan struct{}), make(chan struct{}), 0
	go func() { // ends with end, which stop closes and waits for
		defer close(done)
		for {
			select {
			case <-end:
				return
			default:
				if unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE) == nil {
					n++
				}
			}
		}
	}()
	return func() int {
		close(end)
		<-done
		return n
	}
}

// TestLayersStayInside: class 5: what a loaded image's layers hold is made inside of them, or the image is refused.
func TestLayersStayInside(t *testing.T) {
	h := newHostile(t)
	up := strings.Repeat("../", 30) + h.out[1:]
	for name, pieces := range map[string][]piece{
		"dots":             {{name: up + "/secret", content: "evil"}},
		"absolute":         {{name: h.out + "/secret", content: "evil"}},
		"link":             {symlink("l", h.out), {name: "l/secret", content: "evil"}},
		"link-upwards":     {symlink("l", up), {name: "l/secret", content: "evil"}, {name: "l/made", content: "evil"}},
		"hard-link":        {{name: "h", link: up + "/secret", kind: tar.TypeLink}, {name: "h", content: "evil"}},
		"hard-link-2":      {symlink("l", h.out), {name: "h", link: "l/secret", kind: tar.TypeLink}, {name: "h", content: "evil"}},
		"whiteout":         {symlink("l", h.out), {name: "l/.wh.secret"}, {name: "l/.wh..wh..opq"}},
		"whiteout-upwards": {{name: ".wh..."}, {name: "x/.wh.../" + up + "/secret"}},
		"mode":             {symlink("l", h.out), {name: "l", kind: tar.TypeDir, mode: 0o700}},
		"magic":            {symlink("l", "/proc/self/cwd"), {name: "l/made", content: "evil"}},
	} {
		if full, _, err := h.load("layer-"+name, nil, pieces...); err == nil {
			out, _ := h.run("wherry", "run", "--rm", full, "sh", "-c", "cat /h "+h.out+"/etc/secret /l/etc/hosts")
			if strings.Contains(out, "canary") {
				t.Errorf("%s: the container sees outside: %q", name, out)
			}
		}
		h.intact()
	}
}
