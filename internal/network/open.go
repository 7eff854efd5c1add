package network

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"wherry.dev/wherry/internal/network/dns"
)

// Open reads the definitions, makes the default network "bridge" (and "host", "none"), mends links and rules from the live endpoints.
func Open(ctx context.Context, o Options) (_ *Service, err error) {
	s := &Service{o: o, state: state{names: namesOf(o.State), poolTexts: o.Pools, networks: map[string]*lan{}, holdings: map[string]*holding{}, ends: map[string]bool{}}}
	s.resolvers = dns.New(view{s})
	defer func() {
		if err != nil {
			err = errors.Join(err, s.shut())
		}
	}()
	if err := readSettings(s); err != nil {
		return nil, err
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil, fmt.Errorf("read the boot id: %w", err)
	}
	s.bootID = strings.TrimSpace(string(boot))
	for _, dir := range []string{s.o.definitions(), s.o.live()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("make the folder of networks: %w", err)
		}
	}
	if s.kernel, err = openKernel(s.names.table, s.log); err != nil {
		return nil, err
	}
	s.log(s.redirect(filepath.Join(s.o.live(), "localhost")))
	if err := s.load(); err != nil {
		return nil, err
	}
	if err := s.readHoldings(); err != nil {
		return nil, err
	}
	if err := tuneDefault(s); err != nil {
		return nil, err
	}
	s.findNamespaces()
	if err := s.forward(filepath.Join(o.live(), "still"), s.bootID); err != nil {
		return nil, err
	}
	if err := s.mend(ctx); err != nil {
		return nil, err
	}
	rerouteAll(s)
	s.resumeResolvers(ctx)
	if s.guard, err = newGuard(s.fire, s.log); err != nil {
		return nil, err
	}
	if s.routes, err = watchRoutes(s); err != nil {
		return nil, err
	}
	return s, nil
}

// readSettings reads what is said in words.
func readSettings(s *Service) (err error) {
	if _, err := poolRanges(s.o.Pools, false); err != nil {
		return err
	}
	if s.defaults, err = s.o.Defaults.read(); err != nil {
		return err
	}
	s.conf.said = s.o.Resolvers.read()
	return nil
}

// Close stops DNS and watchers; links and rules stay, running containers keep their network. Where no container runs nothing stays but the
// definitions.
func (s *Service) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	idle := len(s.holdings) == 0
	var bridges []string
	for _, n := range s.networks {
		bridges = append(bridges, s.annexLinks(n)...)
		if n.plumbed() && !n.Adopted && n.index > 0 {
			bridges = append(bridges, n.Bridge)
		}
	}
	s.mu.Unlock()
	var errs []error
	if s.routes != nil {
		s.routes.close()
	}
	if s.guard != nil {
		errs = append(errs, s.guard.close())
	}
	if idle {
		errs = append(errs, s.fire.Delete())
		for _, b := range bridges {
			s.later.add(job{end: b})
		}
	}
	return errors.Join(append(errs, s.shut())...)
}

// shut closes what is open.
func (s *Service) shut() error {
	s.resolvers.Close()
	errs := []error{s.kernel.close()}
	for _, h := range s.holdings {
		h.closePorts()
		if h.ns != nil {
			errs = append(errs, h.ns.Close())
		}
	}
	return errors.Join(errs...)
}
