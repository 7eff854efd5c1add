package network

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// namespace names a network namespace: it is found again by what it is, not by a process id, which may be another's by then.
type namespace struct{ Device, Inode uint64 }

func namespaceOf(f *os.File) (namespace, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return namespace{}, fmt.Errorf("look at a network namespace: %w", err)
	}
	return namespace{uint64(st.Dev), st.Ino}, nil
}

// write puts the holding where the next life of the engine finds it. It is in a file system in memory: nothing is synced.
func (h *holding) write(dir string) error {
	b, err := json.Marshal(h)
	if err == nil {
		err = writeFile(filepath.Join(dir, h.Request.ContainerID+".json"), b, false)
	}
	if err != nil {
		return fmt.Errorf("write what container %s holds of networks: %w", h.Request.Name, err)
	}
	return nil
}

// readHoldings reads what an earlier life of the engine attached. What is of an earlier life of the host is gone.
func (s *Service) readHoldings() error {
	damaged, err := readFolder(s.o.live(), func(name string, b []byte) error {
		var h holding
		if err := json.Unmarshal(b, &h); err != nil {
			return err
		}
		if h.Request.ContainerID != name {
			return fmt.Errorf("it is of container %q", h.Request.ContainerID)
		}
		if h.BootID != s.bootID {
			return os.Remove(filepath.Join(s.o.live(), name+".json"))
		}
		h.attached = true
		s.adopt(&h)
		return nil
	})
	if err != nil {
		return fmt.Errorf("read the live endpoints: %w", err)
	}
	settleTurns(s.holdings)
	for _, h := range s.holdings {
		for _, err := range h.rebind() {
			s.log(err)
		}
	}
	for _, err := range damaged {
		s.log(fmt.Errorf("a live endpoint's record is damaged, its container is without a network until it is started again: %w", err))
	}
	return nil
}

// adopt takes a holding of an earlier life into memory.
func (s *Service) adopt(h *holding) {
	id := h.Request.ContainerID
	kept := h.Endpoints[:0]
	for _, e := range h.Endpoints {
		n := s.networks[e.NetworkID]
		if n == nil {
			s.log(fmt.Errorf("container %s is on the network %s, which is gone", h.Request.Name, e.Network))
			continue
		}
		errs := []error{n.v4.keep(e.V4), n.v6.keep(e.V6)}
		for _, a := range e.Spare {
			errs = append(errs, n.poolOf(a).keep(a))
		}
		for _, err := range errs {
			if err != nil {
				s.log(fmt.Errorf("address of container %s: %w", h.Request.Name, err))
			}
		}
		n.enter(id, e)
		s.ends[e.End] = true
		kept = append(kept, e)
	}
	h.Endpoints = kept
	s.holdings[id] = h
}

// rebind reserves the ports of a holding of an earlier life.
func (h *holding) rebind() (errs []error) {
	for _, r := range h.Reserved {
		if err := r.bind(); err != nil {
			errs = append(errs, fmt.Errorf("a port of container %s was taken while no engine ran, it stays published: %w", h.Request.Name, err))
		}
	}
	return errs
}

// findNamespaces opens the namespaces of adopted holdings, by looking at all processes once.
func (s *state) findNamespaces() {
	want := map[namespace]*holding{}
	for _, h := range s.holdings {
		if h.ns == nil && h.Namespace.Inode != 0 {
			want[h.Namespace] = h
		}
	}
	if len(want) == 0 {
		return
	}
	paths, _ := filepath.Glob("/proc/[0-9]*/ns/net")
	for _, path := range paths {
		var st syscall.Stat_t
		if syscall.Stat(path, &st) != nil {
			continue
		}
		key := namespace{uint64(st.Dev), st.Ino}
		h := want[key]
		if h == nil {
			continue
		}
		f, err := os.Open(path)
		if err != nil {
			continue
		}
		if now, err := namespaceOf(f); err != nil || now != key {
			f.Close()
			continue
		}
		h.ns = f
		delete(want, key)
	}
}

func (h *holding) forget(dir string) error {
	err := os.Remove(filepath.Join(dir, h.Request.ContainerID+".json"))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}
