package cli

import (
	"strings"
	"testing"
)

// TestAuditReports: whoever reads what was found knows what to do with it.
func TestAuditReports(t *testing.T) {
	for name, row := range map[string]struct {
		r           auditReport
		expect      string
		says, fails string
	}{
		"whole": {auditReport{OK: true, Records: 18, First: 1, Last: 18, Hash: "5d0c"}, "",
			"18 records, 1 to 18, are what was written: none was changed, none is missing\n" +
				"root could have written all of them anew. To be sure of them later, keep this line on another machine:\n    wherry audit verify --expect 18:5d0c\n", ""},
		"expected": {auditReport{OK: true, Records: 18, First: 1, Last: 18, Hash: "5d0c"}, "7:aa", "none is missing; 7:aa is among them\n", ""},
		"broken":   {auditReport{File: "log.1", Line: 3, Problem: "record 3 was changed"}, "", "", "the audit log is not what was written: log.1:3: record 3 was changed"},
		"too old":  {auditReport{Problem: "it has gone"}, "7:aa", "", "the audit log cannot be checked against --expect 7:aa: it has gone"},
		"cut":      {auditReport{OK: true, Records: 2, First: 1, Last: 2, Cut: []string{"torn"}}, "", "as a power cut leaves it: torn\n2 records, 1 to 2, are what was written", ""},
		"told":     {auditReport{Told: []string{"torn"}}, "", "when it started: torn\n", "damaged while the engine did not run"},
	} {
		var out strings.Builder
		err := row.r.print(&out, row.expect)
		if !strings.Contains(out.String(), row.says) || (err == nil) != (row.fails == "") || err != nil && !strings.Contains(err.Error(), row.fails) {
			t.Errorf("%s: %q, %v", name, out.String(), err)
		}
	}
}
