package test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestLogsGoToSyslog has containers' output sent to a real rsyslog, which says how it has understood it.
func TestLogsGoToSyslog(t *testing.T) {
	e := ownEngine(t, "busybox-1")
	dir := t.TempDir()
	out := filepath.Join(dir, "out")
	config := fmt.Sprintf(`global(workDirectory="%[1]s" parser.permitSlashInProgramName="on" net.enableDNS="off")
module(load="imtcp")
module(load="imudp")
input(type="imtcp" address="127.0.0.1" port="5514")
input(type="imudp" address="127.0.0.1" port="5514")
template(name="seen" type="string" string="%%syslogfacility-text%%.%%syslogseverity-text%% %%programname%%:%%msg%%\n")
action(type="omfile" file="%[1]s/out" template="seen")
`, dir)
	ok(t, os.WriteFile(filepath.Join(dir, "conf"), []byte(config), 0o600))
	server := exec.Command("rsyslogd", "-n", "-f", filepath.Join(dir, "conf"), "-i", filepath.Join(dir, "pid"))
	ok(t, server.Start())
	t.Cleanup(func() {
		_ = server.Process.Signal(unix.SIGTERM)
		_ = server.Wait()
	})
	ok(t, eventually(20*time.Second, func() error { _, err := os.Stat(filepath.Join(dir, "pid")); return err }))
	for _, row := range []struct{ address, format string }{{"tcp://127.0.0.1:5514", ""}, {"tcp://127.0.0.1:5514", "rfc5424"}, {"tcp://127.0.0.1:5514", "rfc3164"}, {"udp://127.0.0.1:5514", "rfc5424micro"}} {
		for _, client := range []string{"docker", "wherry"} {
			name := fmt.Sprintf("%s-%s-%s", client, row.address[:3], row.format+"x")
			args := []string{"run", "--rm", "--name", name, "--log-driver", "syslog", "--log-opt", "syslog-address=" + row.address, "--log-opt", "syslog-format=" + row.format,
				"--log-opt", "tag={{.Name}}", "--log-opt", "syslog-facility=local3", "busybox:1", "sh", "-c", "echo a line of output; echo one of errors >&2"}
			if text, err := e.run(client, args...); err != nil || !strings.Contains(text, "a line of output") {
				t.Fatalf("%q, %v", text, err)
			}
			ok(t, eventually(20*time.Second, func() error {
				text, err := os.ReadFile(out)
				for _, want := range []string{"local3.info " + name + ": a line of output\n", "local3.err " + name + ": one of errors\n"} {
					if !strings.Contains(strings.ReplaceAll(string(text), name+":a", name+": a"), want) && !strings.Contains(strings.ReplaceAll(string(text), name+":one", name+": one"), want) {
						return fmt.Errorf("no %q in %q, %v", want, text, err)
					}
				}
				return nil
			}))
		}
	}
}
