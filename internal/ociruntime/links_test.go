package ociruntime

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// TestLinkOptions: what crun does with links, for those who say so.
func TestLinkOptions(t *testing.T) {
	host := t.TempDir()
	must(t, os.WriteFile(host+"/file", []byte("of the host\n"), 0o644))
	must(t, os.Symlink("file", host+"/link"))
	for _, row := range []struct {
		options, destination, script, want string
	}{
		{"bind", "/there", "cat /there /real", "of the host\nof the host\n"}, // the link in the image is followed, and the host's
		{"bind,dest-nofollow", "/there", "cat /there /real", "of the host\nof the image\n"},
		{"bind,src-nofollow,dest-nofollow", "/there", "readlink /there; cat /real", "file\nof the image\n"},
		{"bind,src-nofollow,dest-nofollow", "/deep/new", "readlink /deep/new", "file\n"},
		{"bind,copy-symlink", "/made/new", "readlink /made/new; stat -c %u /made/new", "file\n0\n"},
		{"bind,copy-symlink", "/same", "readlink /same", "file\n"},
	} {
		b := newBox(t, "sh", "-c", row.script)
		must(t, os.WriteFile(filepath.Join(b.image, "real"), []byte("of the image\n"), 0o644))
		must(t, os.Symlink("real", filepath.Join(b.image, "there")))
		must(t, os.Symlink("file", filepath.Join(b.image, "same")))
		b.spec.Mounts = append(b.spec.Mounts, specs.Mount{Destination: row.destination, Source: host + "/link", Options: strings.Split(row.options, ",")})
		if out, _, err := b.run(); err != nil || out != row.want {
			t.Errorf("%s at %s: %q, want %q, %v", row.options, row.destination, out, row.want, err)
		}
	}
	for want, m := range map[string]specs.Mount{
		"goes together":  {Destination: "/x", Source: host + "/link", Options: []string{"bind", "copy-symlink", "src-nofollow"}},
		"file exists":    {Destination: "/bin/sh", Source: host + "/link", Options: []string{"bind", "copy-symlink"}},
		"be covered":     {Destination: "/proc/self", Source: host + "/link", Options: []string{"bind", "copy-symlink"}},
		"would be cover": {Destination: "/proc/self", Source: host + "/link", Options: []string{"bind", "dest-nofollow"}},
	} {
		b := newBox(t, "true")
		b.spec.Mounts = append(b.spec.Mounts, m)
		if _, _, err := b.run(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

// TestMappingsOfAnOption are crun's, also relative to the container's.
func TestMappingsOfAnOption(t *testing.T) {
	l := &specs.Linux{UIDMappings: []specs.LinuxIDMapping{{HostID: 0, Size: 1}, {ContainerID: 1, HostID: 2, Size: 1000}}}
	uids, gids, err := parseMappings("uids=@1-3-10#20-30-40;gids=0-100-10", l)
	must(t, err)
	if want := []specs.LinuxIDMapping{{ContainerID: 1, HostID: 4, Size: 10}, {ContainerID: 20, HostID: 30, Size: 40}}; !reflect.DeepEqual(uids, want) {
		t.Errorf("%v, want %v", uids, want)
	}
	if want := []specs.LinuxIDMapping{{HostID: 100, Size: 10}}; !reflect.DeepEqual(gids, want) {
		t.Errorf("%v, want %v", gids, want)
	}
	for _, bad := range []string{"uids=1-2", "uids=@0-0-2", "uids=a-b-c", "x=1-2-3", "uids=1-2-99999999999"} {
		if _, _, err := parseMappings(bad, l); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
	needsMappedTmpfs(t)
	b := newBox(t, "stat", "-c", "%u %g", "/bind")
	b.spec.Mounts = append(b.spec.Mounts, specs.Mount{Destination: "/bind", Source: tree(t, 0), Options: []string{"bind", "idmap=uids=@0-7-1;gids=@0-8-1"}})
	if out, _, err := b.run(); err != nil || out != "7 8\n" {
		t.Errorf("%q, %v", out, err)
	}
}

func FuzzMappings(f *testing.F) {
	for _, s := range []string{"uids=0-1-10#10-11-10;gids=0-100-10", "uids=@1-3-10", "", ";", "uids=", "gids=--", "uids=0-0-4294967295"} {
		f.Add(s)
	}
	l := &specs.Linux{UIDMappings: []specs.LinuxIDMapping{{ContainerID: 5, HostID: 1 << 31, Size: 1 << 31}}}
	f.Fuzz(func(t *testing.T, text string) {
		uids, _, err := parseMappings(text, l)
		if err == nil && strings.Contains(text, "uids=") && len(uids) == 0 {
			t.Errorf("%q has no ids", text)
		}
	})
}
