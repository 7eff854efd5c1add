package test

import (
	"archive/tar"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestImagesAreNoControl: class 6: what an image says of itself is data, or refused: no user beyond 32 bits or outside of the container's
// range, no line of another file, no place outside, no option, no command of the host's, nothing that the engine takes for its own word.
func TestImagesAreNoControl(t *testing.T) {
	h := newHostile(t)
	long := strings.Repeat("x", 60<<10)
	rows := map[string]struct {
		config map[string]any
		args   []string
		want   string // in what it prints; "": refused
	}{
		"user-2-32":       {config: map[string]any{"User": "4294967296"}},
		"user-negative":   {config: map[string]any{"User": "-1"}},
		"user-max":        {config: map[string]any{"User": "4294967295"}},
		"user-outside":    {config: map[string]any{"User": "65536"}},
		"user-newline":    {config: map[string]any{"User": "web\nroot"}},
		"user-number":     {config: map[string]any{"User": "33\n0"}},
		"user-group":      {config: map[string]any{"User": "web:4294967296"}},
		"user-dots":       {config: map[string]any{"User": "../../root"}},
		"user-exec":       {config: map[string]any{"User": "web"}, want: "uid=33(web) gid=33(web) groups=33(web)"},
		"home":            {config: map[string]any{"Env": []string{"PATH=/bin", "HOME=/x\nevil::0:0::/:/bin/sh"}}, want: "evil::0:0::/:/bin/sh"},
		"env-nul":         {config: map[string]any{"Env": []string{"PATH=/bin", "A=\x00B=evil"}}},
		"env-nameless":    {config: map[string]any{"Env": []string{"PATH=/bin", "=evil"}}},
		"preload":         {config: map[string]any{"Env": []string{"PATH=/bin", "LD_PRELOAD=/evil.so", "GODEBUG=x", "GOTRACEBACK=crash"}}, args: []string{"--init"}, want: "LD_PRELOAD=/evil.so"},
		"volume-up":       {config: map[string]any{"Volumes": map[string]any{"../../etc": map[string]any{}}}},
		"volume-root":     {config: map[string]any{"Volumes": map[string]any{"/../..": map[string]any{}}}},
		"volume-proc":     {config: map[string]any{"Volumes": map[string]any{"/proc": map[string]any{}}}},
		"volume-colon":    {config: map[string]any{"Volumes": map[string]any{"/etc:/x:rshared": map[string]any{}}}, want: "/etc:/x:rshared"},
		"signal":          {config: map[string]any{"StopSignal": "SIGKILL; reboot"}},
		"directory":       {config: map[string]any{"WorkingDir": "relative"}},
		"ports":           {config: map[string]any{"ExposedPorts": map[string]any{"-1/tcp": map[string]any{}, "99999/tcp": map[string]any{}, "80; reboot": map[string]any{}}}, args: []string{"-P"}, want: "whole"},
		"labels":          {config: map[string]any{"Labels": hostileLabels(h.out)}, want: "whole"},
		"entrypoint":      {config: map[string]any{"Entrypoint": []string{"--privileged", "--", "sh"}}},
		"health-interval": {config: map[string]any{"Healthcheck": map[string]any{"Test": []string{"CMD", "true"}, "Interval": -1}}},
		"health-long":     {config: map[string]any{"Healthcheck": map[string]any{"Test": []string{"CMD", "true", long}, "Interval": time.Second}}, want: "whole"},
		"shell":           {config: map[string]any{"Shell": []string{"/bin/evil"}, "OnBuild": []string{"RUN evil"}, "ArgsEscaped": true}, want: "whole"},
	}
	for name, row := range rows {
		full, loaded, err := h.load(name, row.config)
		if err != nil {
			if row.want != "" {
				t.Errorf("%s: load: %s", name, loaded)
			}
			continue
		}
		for _, client := range []string{"wherry", "docker"} {
			out, code := h.run(client, append(append([]string{"run", "--rm"}, row.args...), full, "sh", "-c", "id; env; cat /proc/mounts; cat /etc/passwd; echo whole")...)
			switch {
			case row.want == "" && code == 0, strings.Contains(out, "uid=0") && strings.HasPrefix(name, "user"):
				t.Errorf("%s by %s: it ran: %q", name, client, out)
			case row.want != "" && (code != 0 || !strings.Contains(out, row.want)):
				t.Errorf("%s by %s: exit code %d, %q", name, client, code, out)
			}
			passwd := out[strings.LastIndex(out, "/proc/")+1:]
			if row.want != "" && (strings.Count(passwd, ":/bin/sh") != 2 || strings.Contains(out, "/ overlay rw,nosuid")) {
				t.Errorf("%s by %s: something has become another: %q", name, client, out)
			}
		}
	}
	for _, value := range []string{"1+kernel.core_pattern=|/evil", "1\nkernel.core_pattern=|/evil"} { // CVE-2022-0811
		if out, code := h.run("wherry", "run", "--rm", "--sysctl", "kernel.shm_rmid_forced="+value, h.image("base", nil), "cat", "/proc/sys/kernel/core_pattern"); code == 0 && strings.Contains(out, "evil") {
			t.Errorf("a sysctl's value: %q", out)
		}
	}
	if out, code := h.run("docker", "run", "--rm", "--annotation", "dev.wherry.root.nosuid=false", h.image("base", nil), "true"); code == 0 && !strings.Contains(out, "unknown flag") {
		t.Errorf("an annotation of the engine's own: %q", out)
	}
	if out, code := h.run("wherry", "run", "--rm", "--annotation", "dev.wherry.root.nosuid=false", h.image("base", nil), "true"); code != 125 || !strings.Contains(out, "engine's own") {
		t.Errorf("an annotation of the engine's own: %q", out)
	}
}

func hostileLabels(outside string) map[string]string {
	run := "$(echo evil >" + outside + "/evil)"
	labels := map[string]string{run: "`" + run + "`", "a\nb": "c\nd", "": "nameless"}
	for _, key := range []string{"dev.wherry.built-in", "dev.wherry.root.nosuid", "io.containerd.image.name", "io.kubernetes.cri.container-type", "com.docker.compose.project",
		"io.podman.annotations.privileged", "run", "org.systemd.property.ExecStart", "maintainer", "containerd.io/gc.root"} {
		labels[key] = "true"
	}
	return labels
}

// TestAccountsAreFiles: class 7 (CVE-2024-9676, CVE-2025-4437): a pipe, a device, 600 MB and a link out of the container in passwd's and
// group's place stop nobody, are not read, and cost no memory, for run, exec and cp -a.
func TestAccountsAreFiles(t *testing.T) {
	h := newHostile(t)
	outside := h.out + "/passwd"
	ok(t, os.WriteFile(outside, []byte("spy:x:7:7::/:/bin/sh\n"), 0o644))
	h.tree = h.listing()
	file := h.out + "/hosts"
	pipe := []piece{{name: "etc/passwd", kind: tar.TypeFifo, mode: 0o666}, {name: "etc/group", kind: tar.TypeFifo, mode: 0o666}}
	rows := map[string][]piece{
		"pipe": pipe, "link": {symlink("etc/passwd", outside)}, "link-upwards": {symlink("etc/passwd", strings.Repeat("../", 30)+outside[1:])},
		"magic": {symlink("etc/passwd", "/proc/1/root"+outside)}, "folder": {{name: "etc/passwd/", kind: tar.TypeDir}},
		"device": {{name: "etc/passwd", kind: tar.TypeChar, major: 4000, minor: 7}}, "loop": {symlink("etc/passwd", "passwd")},
	}
	begin := time.Now()
	for name, pieces := range rows {
		image := h.image("accounts-"+name, nil, pieces...)
		if out, code := h.run("wherry", "run", "--rm", "-u", "spy", image, "id"); code != 125 || !strings.Contains(out, "spy") {
			t.Errorf("%s: run: exit code %d, %q", name, code, out)
		}
		c := h.background("-u", "7", image, "sleep", "1000")
		if out, code := h.run("docker", "exec", "-u", "spy", c, "id"); code == 0 || strings.Contains(out, "uid=7(spy)") {
			t.Errorf("%s: exec: exit code %d, %q", name, code, out)
		}
		h.must("docker", "cp", "-a", file, c+":/tmp/")
	}
	c := h.background("-u", "0", h.image("accounts-huge", nil), "sh", "-c", "truncate -s 600M /etc/passwd; truncate -s 600M /etc/group; echo made; sleep 1000")
	ok(t, eventuallyLogs(h, c, "made"))
	for range 5 {
		if out, code := h.run("wherry", "exec", "-u", "web", c, "id"); code == 0 || !strings.Contains(out, "are the most") {
			t.Errorf("600 MB: %d %q", code, out)
		}
	}
	h.must("wherry", "cp", "-a", file, c+":/tmp/")
	if peak := peakOf(t, shared.engine.cmd.Process.Pid); peak > 400<<20 {
		t.Errorf("the engine has used %d MB", peak>>20)
	}
	if took := time.Since(begin); took > 2*time.Minute {
		t.Errorf("it took %v: somebody waited for a pipe", took)
	}
}

// peakOf is the most memory that a process has had.
func peakOf(t *testing.T, pid int) int64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	ok(t, err)
	_, rest, _ := strings.Cut(string(b), "VmHWM:")
	n, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
	ok(t, err)
	return n << 10
}
