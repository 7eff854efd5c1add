package cgroup

import (
	"strings"
	"testing"
)

// FuzzOOMRecord reads lines of the kernel's log, in which the victim's name is its own choice.
func FuzzOOMRecord(f *testing.F) {
	f.Add("4,1,2,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),oom_memcg=/g,task_memcg=/g,task=tail,pid=1,uid=0", "/g")
	f.Add("oom-kill:constraint=,task_memcg=/g,task=,pid=1,task_memcg=/h,task=x,pid=2", "/h")
	f.Add(",task=,pid=", "")
	f.Fuzz(func(t *testing.T, line, group string) {
		task, ok := oomRecord(line, group)
		if ok && !strings.Contains(line, ",task="+task+",pid=") {
			t.Errorf("%q: %q", line, task)
		}
	})
}
