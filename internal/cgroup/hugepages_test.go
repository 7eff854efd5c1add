package cgroup

import (
	"maps"
	"os"
	"path/filepath"
	"testing"
)

func TestHugePages(t *testing.T) {
	for _, row := range []struct {
		name, controller string
		files            map[string]string
		want             map[string]HugePages
	}{
		{"version 2", unified, map[string]string{"hugetlb.2MB.current": "4194304\n", "hugetlb.2MB.rsvd.current": "6291456\n", "hugetlb.2MB.max": "max\n", "hugetlb.2MB.events": "max 3\n",
			"hugetlb.1GB.current": "0\n", "hugetlb.1GB.events": "max 0\n"}, map[string]HugePages{"2MB": {Usage: 4 << 20, Failures: 3}, "1GB": {}}},
		{"version 1", "hugetlb", map[string]string{"hugetlb.2MB.usage_in_bytes": "2097152\n", "hugetlb.2MB.rsvd.usage_in_bytes": "9\n", "hugetlb.2MB.max_usage_in_bytes": "4194304\n",
			"hugetlb.2MB.failcnt": "1\n"}, map[string]HugePages{"2MB": {Usage: 2 << 20, Max: 4 << 20, Failures: 1}}},
		{"none", unified, nil, nil},
	} {
		dir := t.TempDir()
		for name, text := range row.files {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		g := &Group{dirs: map[string]string{row.controller: dir}}
		if got := HugePagesOf(g); !maps.Equal(got, row.want) {
			t.Errorf("%s: %v, want %v", row.name, got, row.want)
		}
	}
}
