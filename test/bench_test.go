package test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"wherry.dev/wherry/internal/contract"
)

// shared is what all scripts use: binaries, image archives, a registry and one engine.
var shared *bench

type bench struct {
	dir, bin, images string
	registry         *exec.Cmd
	engine           *engine
	ledger           *ledger
}

const registryAddress = "127.0.0.1:5000"

// run names one run of the tests: its folder, its control groups. It is the outer process's, so that runs beside each other are apart.
func run() string {
	if name := os.Getenv(innerVariable); name != "" {
		return name
	}
	return fmt.Sprintf("wherry-e2e-%d", os.Getpid())
}

func newBench(dir string) (*bench, error) {
	b := &bench{dir: dir, bin: filepath.Join(repository(), "bin"), images: filepath.Join(repository(), ".cache/images")}
	for _, file := range []string{b.bin + "/wherry", b.bin + "/wherryd", b.bin + "/wherry-verify", b.bin + "/oar", b.images + "/busybox-1.tar"} {
		if _, err := os.Stat(file); err != nil {
			return nil, fmt.Errorf("%w: run `make test`, which builds it", err)
		}
	}
	var err error
	if b.ledger, err = newLedger(); err != nil {
		return nil, err
	}
	if err := b.startRegistry(); err != nil {
		return nil, err
	}
	b.engine = newEngine(b, filepath.Join(dir, "shared"))
	if err := b.engine.start(); err != nil {
		return b, err
	}
	for _, name := range []string{"busybox-1", "debian-12"} {
		if err := b.engine.load(name); err != nil {
			return b, err
		}
	}
	return b, nil
}

func (b *bench) close() error {
	err := errors.Join(b.engine.shutdown(), b.ledger.verdict())
	if b.registry != nil {
		_ = b.registry.Process.Kill()
		_ = b.registry.Wait()
	}
	return err
}

// startRegistry runs Debian's docker-registry on the loopback of these namespaces.
func (b *bench) startRegistry() error {
	config := filepath.Join(b.dir, "registry.yml")
	text := fmt.Sprintf("version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\nstorage: {filesystem: {rootdirectory: %s}, delete: {enabled: true}}\nhttp: {addr: %s}\n",
		filepath.Join(b.dir, "registry"), registryAddress)
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		return err
	}
	b.registry = exec.Command("docker-registry", "serve", config)
	b.registry.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	log, err := os.Create(filepath.Join(b.dir, "registry.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	b.registry.Stdout, b.registry.Stderr = log, log
	if err := b.registry.Start(); err != nil {
		return err
	}
	return eventually(time.Minute, func() error {
		r, err := http.Get("http://" + registryAddress + "/v2/")
		if err == nil {
			r.Body.Close()
		}
		return err
	})
}

// engine is one wherryd with everything of its own below dir.
type engine struct {
	bench *bench
	dir   string
	args  []string
	cmd   *exec.Cmd
	// pids is how many processes there may be where the engine lives, in a pid namespace of its own; 0: it lives in the tests'.
	pids int
	// shell is what a shell does before it becomes the engine, in a UTS namespace of its own; empty: there is none.
	shell string
	// recorder stands between the clients and the engine while it runs.
	recorder *contract.Recorder
	// foreign: its clients are not Docker's, and ask for more than the specification has, which dockerd ignores.
	foreign bool
}

func newEngine(b *bench, dir string) *engine { return &engine{bench: b, dir: dir} }

func (e *engine) socket() string { return filepath.Join(e.dir, "wherry.sock") }
func (e *engine) host() string   { return "unix://" + e.socket() }

// environment is what a client needs to reach this engine.
func (e *engine) environment() []string {
	host := "unix://" + e.front()
	return []string{"WHERRY_HOST=" + host, "DOCKER_HOST=" + host}
}

func (e *engine) start() error {
	if err := os.MkdirAll(e.dir, 0o700); err != nil {
		return err
	}
	log, err := os.OpenFile(filepath.Join(e.dir, "wherryd.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	args := append([]string{"--root", e.dir + "/root", "--state", e.dir + "/state", "--host", e.host(), "--cgroup-parent", "/" + run()}, layersOption()...)
	args = append(args, e.args...)
	e.cmd = exec.Command(filepath.Join(e.bench.bin, "wherryd"), args...)
	if e.pids > 0 {
		script := fmt.Sprintf(`mount -t proc proc /proc && echo %d >/proc/sys/kernel/pid_max && exec "$0" "$@"`, e.pids)
		e.cmd = exec.Command("sh", append([]string{"-c", script, e.cmd.Path}, args...)...)
		e.cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS}
	}
	if e.shell != "" {
		e.cmd = exec.Command("sh", append([]string{"-c", e.shell + `; exec "$0" "$@"`, e.cmd.Path}, args...)...)
		e.cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUTS}
	}
	e.cmd.Stdout, e.cmd.Stderr = log, log
	e.cmd.Dir = "/"
	if err := e.cmd.Start(); err != nil {
		return err
	}
	err = eventually(20*time.Second, func() error { return ping(e.socket()) })
	if err != nil {
		text, _ := os.ReadFile(log.Name())
		return fmt.Errorf("wherryd does not answer: %w\n%s", err, text)
	}
	return e.bench.ledger.record(e)
}

// layersOption has all engines make layers of the kind that WHERRY_TEST_LAYERS names: "overlay" is what kernels before 6.12 get.
func layersOption() []string {
	if kind := os.Getenv("WHERRY_TEST_LAYERS"); kind != "" {
		return []string{"--layers", kind}
	}
	return nil
}

// ping asks the engine as any client would.
func ping(socket string) error {
	client := http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socket)
		}}}
	r, err := client.Get("http://engine/_ping")
	if err != nil {
		return err
	}
	defer r.Body.Close()
	if r.StatusCode != http.StatusOK {
		return errors.New(r.Status)
	}
	return nil
}

// kill ends the engine as a power failure of its process would.
func (e *engine) kill() error {
	if err := e.cmd.Process.Kill(); err != nil {
		return err
	}
	_ = e.cmd.Wait()
	e.bench.ledger.close(e)
	return nil
}

// stop ends the engine in the ordinary way; containers keep running.
func (e *engine) stop() error {
	if err := e.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- e.cmd.Wait() }()
	select {
	case err := <-done:
		e.bench.ledger.close(e)
		return err
	case <-time.After(time.Minute):
		_ = e.cmd.Process.Signal(syscall.SIGQUIT)
		time.Sleep(time.Second) // it tells where it stands
		return fmt.Errorf("wherryd does not end on SIGTERM: see %s/wherryd.log", e.dir)
	}
}

// shutdown removes what the scripts left in the engine, and ends it.
func (e *engine) shutdown() error {
	if e == nil || e.cmd == nil {
		return nil
	}
	out, err := e.run("wherry", "ps", "-aq", "--no-trunc")
	if err != nil {
		return fmt.Errorf("ps at the end: %w: %s", err, out)
	}
	if ids := strings.Fields(out); len(ids) > 0 {
		if out, err := e.run("wherry", append([]string{"rm", "-f", "-v"}, ids...)...); err != nil {
			return fmt.Errorf("rm at the end: %w: %s", err, out)
		}
	}
	if out, err := e.run("wherry", "network", "prune", "-f"); err != nil {
		return fmt.Errorf("network prune at the end: %w: %s", err, out)
	}
	return e.stop()
}

func (e *engine) run(client string, args ...string) (string, error) {
	cmd := exec.Command(client, args...)
	if client == "wherry" {
		cmd.Path = filepath.Join(e.bench.bin, client)
		cmd.Err = nil
	}
	cmd.Env = append(os.Environ(), e.environment()...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// load brings an image archive into the engine and, once, into the registry.
func (e *engine) load(name string) error {
	out, err := e.run("wherry", "load", "-q", "-i", filepath.Join(e.bench.images, name+".tar"))
	if err != nil {
		return fmt.Errorf("load %s: %w: %s", name, err, out)
	}
	return nil
}

// eventually tries until f succeeds; the limit is only there to end a broken run.
func eventually(limit time.Duration, f func() error) error {
	deadline := time.Now().Add(limit)
	for {
		err := f()
		if err == nil || time.Now().After(deadline) {
			return err
		}
		time.Sleep(25 * time.Millisecond)
	}
}
