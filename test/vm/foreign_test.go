package vm

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestForeignPlatforms: programs of another architecture run where the kernel has been told of an emulator (binfmt_misc), in containers and in
// steps of builds, and clients are told which platforms those are. Without one the error says what is missing.
func TestForeignPlatforms(t *testing.T) {
	t.Parallel()
	dir, arm := newDisk(t), filepath.Join(built(t), "arm64")
	disk := filepath.Join(dir, "disk.img")
	for _, file := range []string{"qemu-aarch64-static", "busybox"} {
		if out, err := exec.Command("debugfs", "-w", "-R", "write "+filepath.Join(arm, file)+" /images/"+file, disk).CombinedOutput(); err != nil || strings.Contains(string(out), "rror") {
			t.Fatalf("put %s on the disk: %v\n%s", file, err, out)
		}
	}
	m := bootFrom(t, dir, "", "file="+disk+",if=virtio,format=raw")
	m.run("engine start && wherry load -q -i /images/busybox-1.tar && mkdir /srv /srv/c && cp /images/busybox /srv/c/")
	m.run(`cd /srv/c && printf 'FROM scratch\nCOPY busybox /bin/busybox\nCOPY busybox /bin/sh\n' >Dockerfile && wherry build -q --platform linux/arm64 -t arm:1 .`)
	m.run(`printf 'FROM arm:1\nRUN echo "I am $(busybox uname -m)"; touch /made\nCMD ["/bin/busybox", "uname", "-m"]\n' >/srv/c/Dockerfile`)
	for _, command := range []string{"wherry build --platform linux/arm64 /srv/c", "DOCKER_BUILDKIT=0 docker build --platform linux/arm64 /srv/c", "wherry run --rm --platform linux/arm64 arm:1 busybox uname -m"} {
		if out, code := m.try(command); code == 0 || !strings.Contains(out, "it is a program for arm64, this machine is amd64") || !strings.Contains(out, "binfmt_misc") {
			t.Errorf("%s: %d\n%s", command, code, out)
		}
	}
	m.run(`modprobe binfmt_misc && mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc`)
	// As binfmt-support registers it; F has the kernel open the emulator now, so that containers need not have it.
	m.run(`chmod 755 /images/qemu-aarch64-static; printf '%s' ':qemu-aarch64:M::\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00:\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:/images/qemu-aarch64-static:F' >/proc/sys/fs/binfmt_misc/register`)
	m.want("aarch64", "wherry run --rm --platform linux/arm64 arm:1 busybox uname -m")
	m.run("wherry build -q --platform linux/arm64 -t made:1 /srv/c")
	m.want("aarch64", "wherry run --rm --platform linux/arm64 made:1")
	m.want("arm64", "wherry image inspect -f '{{.Architecture}}' made:1")
	m.run("DOCKER_BUILDKIT=0 docker build -q --no-cache --platform linux/arm64 /srv/c")
	m.off()
}
