package shim

import (
	"context"
	"errors"
	"io/fs"
	"time"

	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/cgroup"
	"wherry.dev/wherry/internal/why"
)

// watch follows the container to its end: its first process, then whatever is left in its group, then its output.
func (s *Server) watch(ctx context.Context) {
	c := s.life.container
	code, sig, err := c.Reap()
	exit := Exit{Code: code, Signal: sig, At: time.Now()}
	if err != nil {
		exit.Code = 255
	}
	made := s.execs.refuse()
	if g := c.Cgroup(); g != nil {
		killMade(ctx, g, made)
		s.account(g, &exit)
	}
	s.execs.await()
	s.kept.drop()
	exit.OutputLost = s.life.output.finish()
	exit.Started = s.hasStarted()
	lasting := exit
	lasting.Execs = s.execs.states()
	err = WriteJSON(s.path(ExitFile), lasting)
	s.mu.Lock()
	s.life.exit, s.life.unwritten = &exit, err != nil
	if s.oom.watch != nil {
		s.oom.watch.Close()
	}
	s.mu.Unlock()
	if g := c.Cgroup(); g != nil && !s.config.Last { // of the last start the engine takes it away, when it has told the end
		_ = g.Delete()
	}
	close(s.ended)
	s.count(0)
	if err != nil {
		s.writeLater(lasting)
	}
}

// writeAgain is after how long an exit status is tried again that could not be written.
const writeAgain = time.Second

// writeLater keeps the shim until its exit status is on the disk, or whoever knows it has taken the folder away: it is nowhere else when no
// engine runs.
func (s *Server) writeLater(e Exit) {
	for {
		select {
		case <-s.quit:
			return
		case <-time.After(writeAgain):
		}
		if err := WriteJSON(s.path(ExitFile), e); err == nil || errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	s.mu.Lock()
	s.life.unwritten = false
	s.mu.Unlock()
	s.count(0)
}

// account says how near the group came to its limits, where that may be why it has ended.
func (s *Server) account(g *cgroup.Group, exit *Exit) {
	kills, err := g.OOMKills()
	if err != nil {
		kills = 0
	}
	if exit.Code == 0 && kills == 0 {
		return
	}
	p := g.Pressure()
	if p.PidsRefused > 0 {
		exit.Processes = &why.Processes{Limit: p.PidsLimit, Refused: p.PidsRefused}
	}
	exit.Memory = &why.Memory{Limit: p.MemoryLimit, Peak: p.MemoryPeak, Kills: kills}
	if kills > 0 {
		s.noteKills(g, exit)
	}
}

// noteKills says how often the kernel has killed for want of memory, and whom.
func (s *Server) noteKills(g *cgroup.Group, exit *Exit) {
	m := exit.Memory
	s.mu.Lock()
	exit.OOMKilled, exit.OOMKills, exit.OOMNoted = true, m.Kills, s.oom.told
	s.mu.Unlock()
	report := g.OOMReport(s.born)
	if exit.OOMVictim = report.Victim; exit.OOMVictim == "" && exit.Signal == int(unix.SIGKILL) {
		exit.OOMVictim = s.life.program
	}
	m.Victim, m.VictimPid, m.Host = exit.OOMVictim, report.Pid, report.Host
	m.First = exit.Signal == int(unix.SIGKILL) && report.Pid == s.life.container.Pid()
	for _, p := range report.Top {
		m.Top = append(m.Top, why.Process(p))
	}
}

// killMade ends what is left of a group, and the processes that are being put into it until made is closed: where the container has no process
// namespace of its own, nothing else ends them with it.
func killMade(ctx context.Context, g *cgroup.Group, made <-chan struct{}) {
	const again = 10 * time.Millisecond
	for {
		select {
		case <-made:
			killAll(ctx, g)
			return
		case <-time.After(again):
			killAll(ctx, g)
		}
	}
}

// killAll ends what is left of a group and comes back when it is empty: before that nothing may be called dead. A process that sleeps in
// the kernel (a lost disk) can make that long.
func killAll(ctx context.Context, g *cgroup.Group) {
	for {
		_ = g.Kill()
		wait, cancel := context.WithTimeout(ctx, 30*time.Second)
		err := g.WaitEmpty(wait)
		cancel()
		if err == nil {
			return
		}
	}
}

// hasStarted says whether the program has ever run; a start that is under way is waited for: the program may have ended before its
// start has been told.
func (s *Server) hasStarted() bool {
	s.mu.Lock()
	starting := s.life.starting
	s.mu.Unlock()
	if starting == nil {
		return false
	}
	<-starting
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.life.started
}
