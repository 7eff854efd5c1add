package test

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

const innerVariable = "WHERRY_TEST_INNER"

// TestMain runs the tests a second time inside namespaces of their own, so that the machine's network, firewall and mounts stay as they
// are, and then audits the machine from outside.
func TestMain(m *testing.M) {
	flag.Parse()
	if os.Getenv(innerVariable) != "" {
		os.Exit(inner(m))
	}
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "the end-to-end tests need root: they make namespaces, mounts and control groups")
		os.Exit(1)
	}
	os.Exit(outer())
}

func outer() int {
	before, err := audit()
	if err != nil {
		fmt.Fprintln(os.Stderr, "audit before:", err)
		return 1
	}
	apt, err := serveApt()
	if err != nil {
		fmt.Fprintln(os.Stderr, "a way to Debian:", err)
		return 1
	}
	signal.Ignore(os.Interrupt) // the child gets it too and ends first
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), innerVariable+"="+run())
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	code := 0
	if err := cmd.Run(); err != nil {
		code = 1
	}
	_ = apt.Close()
	if err := auditAfter(before); err != nil {
		fmt.Fprintf(os.Stderr, "--- FAIL: leak audit\n%v\nFAIL\n", err)
		code = 1
	}
	return code
}

// inner prepares the namespaces, starts the registry and the engine that most scripts share, and runs the tests.
func inner(m *testing.M) (code int) {
	dir, err := os.MkdirTemp("/var/tmp", run()+"-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if err := prepareNamespaces(dir); err != nil {
		fmt.Fprintln(os.Stderr, "prepare the namespaces:", err)
		return 1
	}
	shared, err = newBench(dir)
	if err != nil {
		fmt.Fprintln(os.Stderr, "prepare the tests:", err)
		return 1
	}
	defer func() {
		if err := shared.close(); err != nil {
			fmt.Fprintf(os.Stderr, "--- FAIL: shut down\n%v\nFAIL\n", err)
			code = 1
		}
	}()
	code = m.Run()
	if left, err := filepath.Glob("/tmp/*"); err != nil || len(left) > 0 {
		fmt.Fprintf(os.Stderr, "--- FAIL: left in /tmp: %v %v\nFAIL\n", left, err)
		code = 1
	}
	return code
}

func prepareNamespaces(dir string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	// A resolver that refuses at once: names of registries that are not there do not cost a timeout.
	resolv := filepath.Join(dir, "resolv.conf")
	if err := os.WriteFile(resolv, []byte("nameserver 127.0.0.1\n"), 0o644); err != nil {
		return err
	}
	if err := unix.Mount(resolv, "/etc/resolv.conf", "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount /etc/resolv.conf: %w", err)
	}
	for _, args := range [][]string{
		{"ip", "link", "set", "lo", "up"},
		{"mount", "-t", "tmpfs", "-o", "mode=1777", "tmp", "/tmp"},
		{"mount", "-t", "tmpfs", "-o", "mode=1777", "shm", "/dev/shm"}, // where Podman leaves its locks
		{"sysctl", "-qw", "net.ipv4.ip_forward=1"},
		// An uplink with a default route, as any machine has one: traffic to it goes nowhere.
		{"ip", "link", "add", "uplink0", "type", "veth", "peer", "name", "uplink1"},
		{"ip", "link", "set", "uplink1", "up"},
		{"ip", "addr", "add", "192.0.2.2/24", "dev", "uplink0"},
		{"ip", "link", "set", "uplink0", "up"},
		{"ip", "route", "add", "default", "via", "192.0.2.1"},
	} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%v: %w: %s", args, err, out)
		}
	}
	return nil
}

// repository is the project's root, from this package's folder.
func repository() string {
	dir, err := filepath.Abs("..")
	if err != nil {
		panic(err)
	}
	return dir
}
