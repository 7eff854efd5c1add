package seccomp

import (
	"flag"
	"fmt"
	"go/format"
	"os"
	"sort"
	"strings"
	"testing"

	"github.com/elastic/go-seccomp-bpf/arch"
)

var update = flag.Bool("update", false, "write tables.go anew")

// TestTables holds the checked-in table against the module that it comes from.
func TestTables(t *testing.T) {
	var text strings.Builder
	names := map[string]bool{}
	infos := []*arch.Info{arch.X86_64, arch.I386, arch.X32, arch.AARCH64, arch.ARM}
	numbers := map[*arch.Info]map[string]int{}
	for _, info := range infos {
		numbers[info] = map[string]int{}
		for nr, name := range info.SyscallNumbers {
			if info == arch.AARCH64 && name == "fstatat" { // the module has the name from before its macro: asm-generic/unistd.h
				name = "newfstatat"
			}
			names[name] = true
			// x32 has numbers of its own, from 512, for calls whose structures differ; those of x86_64 are listed beside them.
			if have, ok := numbers[info][name]; !ok || (nr < have) != (info == arch.X32) {
				numbers[info][name] = nr
			}
		}
	}
	sorted := make([]string, 0, len(names))
	for name := range names {
		sorted = append(sorted, name)
	}
	sort.Strings(sorted)
	for _, name := range sorted {
		text.WriteString(name)
		for _, info := range infos {
			nr, ok := numbers[info][name]
			if !ok {
				text.WriteString(" -")
			} else {
				fmt.Fprintf(&text, " %d", nr)
			}
		}
		text.WriteString("\n")
	}
	if *update {
		source := "package seccomp\n\n// syscallTable has a line for each system call: its name and its numbers on x86_64, i386, x32, aarch64 and arm (\"-\": none).\n" +
			"// Made by: go test ./internal/seccomp -run TestTables -update\nconst syscallTable = `" + text.String() + "`\n"
		b, err := format.Source([]byte(source))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile("tables.go", b, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if text.String() != syscallTable {
		t.Error("tables.go is not what the module's tables say: go test ./internal/seccomp -run TestTables -update")
	}
}
