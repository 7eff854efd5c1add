package cgroup

import (
	"os"
	"reflect"
	"strings"
	"testing"
	"time"
)

// FuzzOOMRecord reads lines of the kernel's log, in which the victim's name is its own choice.
func FuzzOOMRecord(f *testing.F) {
	f.Add("4,1,2,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),oom_memcg=/g,task_memcg=/g,task=tail,pid=1,uid=0", "/g")
	f.Add("oom-kill:constraint=,task_memcg=/g,task=,pid=1,task_memcg=/h,task=x,pid=2", "/h")
	f.Add(",task=,pid=", "")
	f.Fuzz(func(t *testing.T, line, group string) {
		task, _, ok := oomRecord(line, group)
		if ok && !strings.Contains(line, ",task="+task+",pid=") {
			t.Errorf("%q: %q", line, task)
		}
	})
}

// TestOOMTable reads the lists of kernels before and after 6.9, which has more columns.
func TestOOMTable(t *testing.T) {
	for name, lines := range map[string][]string{
		"6.1": {
			"6,1,5000000,-;[  pid  ]   uid  tgid total_vm      rss pgtables_bytes swapents oom_score_adj name",
			"6,2,5000001,-;[   1200]     0  1200      456      100    57344        0             0 sh",
			"6,3,5000002,-;[   1234]     0  1234    12345     6000    57344        0             0 tail -f",
		},
		"6.18": {
			"6,1,5000000,-;[  pid  ]   uid  tgid total_vm      rss rss_anon rss_file rss_shmem pgtables_bytes swapents oom_score_adj name",
			"6,2,5000001,-;[   1200]     0  1200      456      100       50       50        0    57344        0             0 sh",
			"6,3,5000002,-;[   1234]     0  1234    12345     6000     5990       10        0    57344        0             0 tail -f",
		},
	} {
		var table oomTable
		lines = append(lines, "6,4,5000003,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/x/g,task_memcg=/x/g,task=tail -f,pid=1234,uid=0")
		var got OOMReport
		for _, line := range lines {
			if r, ok := table.read(line, "/g"); ok {
				got = r
			}
		}
		page := uint64(os.Getpagesize())
		want := OOMReport{Victim: "tail -f", Pid: 1234, Top: []OOMProcess{{1234, "tail -f", 6000 * page}, {1200, "sh", 100 * page}}}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, not %+v", name, got, want)
		}
	}
	if got := stamp("6,4,5000003,-;text"); got != 5000003*time.Microsecond {
		t.Errorf("time of a record: %v", got)
	}
}
