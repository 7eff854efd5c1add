package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"wherry.dev/wherry/internal/access"
	"wherry.dev/wherry/internal/api/docker"
	"wherry.dev/wherry/internal/audit"
	"wherry.dev/wherry/internal/mutual"
	"wherry.dev/wherry/internal/tracing"
	"wherry.dev/wherry/internal/version"
)

// host is an address to listen on: the path of a socket, or an address of TCP.
type host struct{ path, address string }

func (h host) String() string {
	if h.path != "" {
		return "unix://" + h.path
	}
	return "tcp://" + h.address
}

// socket is the first unix socket that the engine listens on.
func (o *options) socket() string {
	for _, h := range o.hosts {
		if h.path != "" {
			return h.path
		}
	}
	return ""
}

// errNoTLS is why there is no listening on TCP without certificates.
var errNoTLS = errors.New("whoever reaches the engine is root on this machine, and a port cannot tell who asks: wherryd listens on TCP only where its clients show certificates; " +
	"give --tlscacert, --tlscert and --tlskey (or ca, cert and key in [tls] of the settings), or reach the socket over ssh (ssh -L ./wherry.sock:/run/wherry/wherry.sock HOST)")

// parseHost takes unix:///path or tcp://address:port apart.
func parseHost(h string) (host, error) {
	scheme, rest, ok := strings.Cut(h, "://")
	switch {
	case ok && scheme == "tcp":
		return parseTCP(h, rest)
	case ok && (scheme == "http" || scheme == "https"):
		return host{}, fmt.Errorf("--host %s: write tcp://address:port", h)
	case ok && scheme == "fd":
		return host{}, fmt.Errorf("--host %s: sockets of a service manager (LISTEN_FDS) are used without being named", h)
	case !ok || scheme != "unix" || !filepath.IsAbs(rest):
		return host{}, fmt.Errorf("--host %s: give a socket as unix:///absolute/path, or an address as tcp://address:port", h)
	}
	return host{path: filepath.Clean(rest)}, nil
}

func parseTCP(h, rest string) (host, error) {
	if _, _, err := net.SplitHostPort(rest); err != nil && !strings.ContainsAny(rest, "/") {
		rest = net.JoinHostPort(strings.Trim(rest, "[]"), "2376") // Docker's port for TLS
	}
	if _, _, err := net.SplitHostPort(rest); err != nil || strings.Contains(rest, "/") {
		return host{}, fmt.Errorf("--host %s: give an address as tcp://address:port", h)
	}
	return host{address: rest}, nil
}

// completeAccess checks how the engine is reached, and by whom.
func (o *options) completeAccess(hosts []string) error {
	onTCP := false
	for _, text := range hosts {
		h, err := parseHost(text)
		if err != nil {
			return err
		}
		onTCP = onTCP || h.address != ""
		o.hosts = append(o.hosts, h)
	}
	t := &o.set.TLS
	var missing []string
	for name, path := range map[string]*string{"tls.ca (--tlscacert)": &t.CA, "tls.cert (--tlscert)": &t.Cert, "tls.key (--tlskey)": &t.Key} {
		if *path == "" {
			missing = append(missing, name)
			continue
		}
		abs, err := filepath.Abs(*path)
		if err != nil {
			return err
		}
		*path = abs
	}
	switch {
	case !o.tlsVerify:
		return fmt.Errorf("--tlsverify=false: %w", errNoTLS)
	case onTCP && len(missing) == 3:
		return fmt.Errorf("--host tcp://: %w", errNoTLS)
	case len(missing) == 1 || len(missing) == 2:
		return fmt.Errorf("TLS needs three files, an authority, a certificate and its key: %s missing", strings.Join(missing, " and "))
	}
	if err := o.checkMetrics(); err != nil {
		return err
	}
	if err := tracing.Check(o.set.Traces.Endpoint); err != nil {
		return fmt.Errorf("traces.endpoint: %w", err)
	}
	o.group = -1
	if o.set.Engine.Group != "" {
		group, err := access.Group(o.set.Engine.Group)
		if err != nil {
			return fmt.Errorf("engine.group (--group): %w", err)
		}
		o.group = group
	}
	if o.set.Engine.Access != "" {
		abs, err := filepath.Abs(o.set.Engine.Access)
		if err != nil {
			return err
		}
		o.set.Engine.Access = abs
	}
	rules, err := access.Read(o.set.Engine.Access, o.group)
	if err != nil {
		return err
	}
	o.access = rules
	if o.check && len(missing) == 0 {
		_, err := mutual.Open(mutual.Files{CA: t.CA, Cert: t.Cert, Key: t.Key}, nil)
		return err
	}
	return nil
}

// secure makes what TCP listeners are wrapped in; nil where TLS is not set up.
func (o *options) secure(log *slog.Logger) (*mutual.Listeners, error) {
	files := mutual.Files{CA: o.set.TLS.CA, Cert: o.set.TLS.Cert, Key: o.set.TLS.Key}
	if files.CA == "" {
		return nil, nil
	}
	if files.Exposed() {
		log.Warn("others than its owner may read the engine's private key: chmod 600 "+files.Key, "setting", "tls.key")
	}
	return mutual.Open(files, func(err error) { log.Warn(err.Error()) })
}

// openAudit opens the audit log, unless the settings want none.
func (o *options) openAudit(log *slog.Logger) (*audit.Log, error) {
	a := o.set.Audit
	if !a.Enabled {
		return nil, nil
	}
	kinds := map[string]audit.Sync{"second": audit.Soon, "always": audit.Always, "never": audit.Never}
	all := a.MaxSize.Of(0)
	l, err := audit.Open(audit.Options{Dir: filepath.Join(o.root, "audit"), Sync: kinds[a.Sync], MaxAll: all, MaxFile: all / 8, Log: func(err error) { log.Warn(err.Error()) }})
	if err != nil {
		return nil, err
	}
	_, err = l.Append(audit.Record{Event: "engine started", With: map[string]string{"version": version.Version, "pid": strconv.Itoa(os.Getpid())}})
	if err != nil { // the disk is full: what makes room needs an engine
		log.Error("the engine's start is missing in the audit log", "error", err)
	}
	return l, nil
}

// reread takes the rules of access from their file again at each SIGHUP. What cannot be read changes nothing, nor does a file that is gone:
// without rules, more callers may do everything.
func (o *options) reread(set func(*access.Rules) error, log *slog.Logger) (stop func()) {
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	var g sync.WaitGroup
	g.Go(func() {
		now := *o
		for range hangups {
			rules, err := access.Read(now.set.Engine.Access, now.group)
			if err == nil && rules.File == "" && now.access.File != "" {
				err = fmt.Errorf("%s is gone: start the engine anew to do without rules", now.access.File)
			}
			if err != nil {
				log.Error("the rules of access stay as they were: " + err.Error())
				continue
			}
			now.access = rules
			if err := set(rules); err != nil {
				log.Warn(err.Error())
			}
			log.Info("the rules of access are read again", "file", rules.File, "rules", len(rules.List))
			now.warn(log)
		}
	})
	return func() {
		signal.Ignore(syscall.SIGHUP) // as before: stopped, it would end the engine, in the middle of closing
		close(hangups)
		g.Wait()
	}
}

// rulesFor has rules hold, and writes down that others do now.
func rulesFor(server *docker.Server, log *audit.Log) func(*access.Rules) error {
	return func(rules *access.Rules) error {
		server.SetAccess(rules)
		if log == nil {
			return nil
		}
		_, err := log.Append(audit.Record{Event: "rules of access read again", With: map[string]string{"file": rules.File, "rules": strconv.Itoa(len(rules.List))}})
		return err
	}
}

// warn says who is as good as root, where that is not plain to see.
func (o *options) warn(log *slog.Logger) {
	if o.access.File != "" {
		if all := o.access.AllOf(); len(all) > 0 {
			log.Info("rules of access make as good as root on this machine: "+strings.Join(all, ", "), "file", o.access.File)
		}
		return
	}
	for _, h := range o.hosts {
		if h.address != "" {
			log.Warn("whoever has a certificate of "+o.set.TLS.CA+"'s is as good as root on this machine: rules of access (engine.access) can say otherwise", "setting", "tls.ca")
			break
		}
	}
	if o.group >= 0 {
		log.Warn("members of group "+o.set.Engine.Group+" are as good as root on this machine: they may start containers that reach all of it; rules of access (engine.access) can say otherwise", "setting", "engine.group")
	}
}
