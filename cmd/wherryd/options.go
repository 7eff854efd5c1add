package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"wherry.dev/wherry/internal/access"
	"wherry.dev/wherry/internal/settings"
	"wherry.dev/wherry/internal/trust"
)

// options of the command line, with paths made absolute.
type options struct {
	root, state  string
	hosts        []host
	oar          string
	cgroupParent string // "": chosen by placeGroups
	shimGroup    string
	insecure     []string
	level        slog.Level
	version      bool
	check        bool  // the settings, instead of a life
	group        int64 // of the sockets; -1: none
	access       *access.Rules
	tlsVerify    bool
	set          settings.Settings
}

var errHelp = errors.New("help was asked for")

// list is a flag that may be given several times.
type list []string

func (l *list) String() string { return strings.Join(*l, ",") }

func (l *list) Set(s string) error {
	*l = append(*l, s)
	return nil
}

// parse reads the flags, and the settings file that they name: a flag wins over the file.
func parse(args []string, stdout io.Writer) (options, error) {
	o := options{set: settings.Default()}
	file, err := o.flags(args, stdout)
	if err != nil || o.version {
		return o, err
	}
	fromFile, err := settings.Read(file)
	if err != nil {
		return o, err
	}
	o = options{set: fromFile}
	if _, err := o.flags(args, stdout); err != nil {
		return o, err
	}
	return o, o.complete()
}

// flags puts what args say over the settings.
func (o *options) flags(args []string, stdout io.Writer) (file string, err error) {
	var hosts, insecure list
	e := &o.set.Engine
	fs := flag.NewFlagSet("wherryd", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.StringVar(&file, "config", "", "settings `file` (default: "+settings.Path+" where there is one)")
	fs.BoolVar(&o.check, "check-config", false, "check the settings file and these flags, print all settings as they would be, and end")
	fs.StringVar(&e.Root, "root", e.Root, "`directory` of everything that lasts")
	fs.StringVar(&e.State, "state", e.State, "`directory` of what ends with the boot")
	fs.Var(&hosts, "host", "`address` to listen on, unix:///path, or tcp://address:port with TLS; may be repeated (default unix://STATE/wherry.sock)")
	fs.StringVar(&e.Group, "group", e.Group, "`group` whose members may use the sockets: they are as good as root, unless rules of access say otherwise")
	fs.StringVar(&e.Access, "access", e.Access, "`file` that says who may do what (default: "+access.Path+", where there is one)")
	fs.BoolVar(&o.tlsVerify, "tlsverify", true, "clients on TCP show a certificate; there is no other way")
	fs.StringVar(&o.set.TLS.CA, "tlscacert", o.set.TLS.CA, "`file` of the authorities whose clients are let in on TCP")
	fs.StringVar(&o.set.TLS.Cert, "tlscert", o.set.TLS.Cert, "`file` of the certificate that the engine shows on TCP")
	fs.StringVar(&o.set.TLS.Key, "tlskey", o.set.TLS.Key, "`file` of its private key")
	fs.StringVar(&e.Oar, "oar", e.Oar, "`path` of the runtime oar (default: beside wherryd, then in PATH)")
	fs.StringVar(&e.Policy, "policy", e.Policy, "policy `file` that says which images may be pulled and run (default: /etc/wherry/policy.toml, or else /etc/containers/policy.json, where there is one)")
	fs.StringVar(&e.Verify, "verify", e.Verify, "`path` of wherry-verify, which judges signatures (default: beside wherryd, then in PATH)")
	fs.StringVar(&e.CgroupParent, "cgroup-parent", e.CgroupParent, "control `group` above all containers, or a slice of systemd's (default: a scope of systemd's, or /wherry)")
	fs.Var(&insecure, "insecure-registry", "registry `host[:port]` or network (CIDR) that may be spoken to without TLS; may be repeated")
	fs.StringVar(&o.set.Store.Layers, "layers", o.set.Store.Layers, "`form` of layers on disk: erofs, overlay, or auto, which is erofs where the kernel can mount it from files")
	fs.TextVar(&e.LogLevel, "log-level", e.LogLevel, "`level` from which on the log has messages: debug, info, warn or error")
	fs.BoolVar(&o.version, "version", false, "print the version and end")
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			printHelp(stdout, fs)
			return "", errHelp
		}
		return "", fmt.Errorf("%w; see wherryd --help", err)
	}
	if fs.NArg() > 0 {
		return "", fmt.Errorf("what is %q? wherryd takes flags only; see wherryd --help", fs.Arg(0))
	}
	if len(hosts) > 0 {
		e.Hosts = hosts
	}
	if len(insecure) > 0 {
		o.set.Registry.Insecure = insecure
	}
	return file, nil
}

// complete checks the options and fills in what follows from others.
func (o *options) complete() (err error) {
	e := &o.set.Engine
	o.root, o.state, o.oar, o.cgroupParent, o.level = e.Root, e.State, e.Oar, e.CgroupParent, e.LogLevel
	o.insecure = o.set.Registry.Insecure
	hosts := e.Hosts
	for _, dir := range []*string{&o.root, &o.state} {
		if *dir, err = filepath.Abs(*dir); err != nil {
			return err
		}
	}
	if len(hosts) == 0 {
		hosts = []string{"unix://" + filepath.Join(o.state, "wherry.sock")}
	}
	if err := o.completeAccess(hosts); err != nil {
		return err
	}
	if err := o.cleanGroup(); err != nil {
		return err
	}
	if o.check {
		return o.checkFiles()
	}
	if e.Policy != "" {
		if e.Policy, err = filepath.Abs(e.Policy); err != nil {
			return err
		}
	}
	if e.Verify, err = findVerify(e.Verify); err != nil {
		return err
	}
	o.oar, err = findOar(o.oar)
	return err
}

// checkFiles looks at the files that settings name. Where the runtime is that none names, is no setting's fault; the policy is in force unnamed, too.
func (o *options) checkFiles() error {
	e := &o.set.Engine
	for setting, path := range map[string]string{oarSetting: e.Oar, "engine.verify (--verify)": e.Verify} {
		if path == "" {
			continue
		}
		if err := program(setting, path); err != nil {
			return err
		}
	}
	if _, err := trust.New(trust.Options{Policy: e.Policy}).Policy(); err != nil {
		return fmt.Errorf("engine.policy (--policy): %w", err)
	}
	return nil
}

const oarSetting = "engine.oar (--oar)"

// program says what is wrong with the path of a program.
func program(setting, path string) error {
	st, err := os.Stat(path)
	switch {
	case err != nil:
		return fmt.Errorf("%s: %w", setting, err)
	case !st.Mode().IsRegular() || st.Mode()&0o111 == 0:
		return fmt.Errorf("%s: %s is no program that can be executed", setting, path)
	}
	return nil
}

// findVerify looks for the helper as findOar does for the runtime. That it is missing is said by the first rule that needs it.
func findVerify(flag string) (string, error) {
	const name = "wherry-verify"
	if flag != "" {
		return filepath.Abs(flag) // it is started from another directory
	}
	if self, err := os.Executable(); err == nil {
		beside := filepath.Join(filepath.Dir(self), name)
		if st, err := os.Stat(beside); err == nil && st.Mode()&0o111 != 0 {
			return beside, nil
		}
	}
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	return name, nil
}

// findOar looks for the runtime: the flag's, beside this binary, in PATH.
func findOar(flag string) (string, error) {
	if flag != "" {
		path, err := filepath.Abs(flag)
		if err != nil {
			return "", err
		}
		return path, program(oarSetting, path)
	}
	if self, err := os.Executable(); err == nil {
		beside := filepath.Join(filepath.Dir(self), "oar")
		if st, err := os.Stat(beside); err == nil && st.Mode()&0o111 != 0 {
			return beside, nil
		}
	}
	path, err := exec.LookPath("oar")
	if err != nil {
		return "", errors.New("the runtime oar is neither beside wherryd nor in PATH: install it there or name it with --oar")
	}
	return filepath.Abs(path)
}
