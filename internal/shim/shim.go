// Package shim is the small process beside each container: its parent, the keeper of its output and of its end.
//
// The engine starts it with a listening socket and speaks to it in frames; the engine may die and come again, the shim stays until its
// container is dead, its exit status is on disk and nobody is connected. It owns <dir>/exit.json and the container's log; the engine
// owns the rest of <dir>.
package shim

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"wherry.dev/wherry/internal/rootfs"
	"wherry.dev/wherry/internal/why"
)

// Names of the files in a task's folder.
const (
	SocketFile = "shim.sock"
	ConfigFile = "config.json" // the OCI configuration as a whole, for people and for other runtimes
	TaskFile   = "task.json"   // a Config, which is all that a shim reads
	ExitFile   = "exit.json"   // an Exit
	ErrorFile  = "shim.log"    // what the shim itself has to complain about
)

// Config is what a shim is told about its container, before it has been created.
type Config struct {
	ID     string         `json:"id"`
	Rootfs *rootfs.Rootfs `json:"rootfs,omitempty"`
	Stdin  bool           `json:"stdin,omitempty"`
	Log    LogConfig      `json:"log"`
	Cgroup string         `json:"cgroup,omitempty"` // for who comes after the shim's death
	Life   int            `json:"life,omitempty"`   // which of the container's starts this is, from 1; the shim does not ask
	Last   bool           `json:"last,omitempty"`   // the container is removed at its end: mounts and control group go when that has been told

	// Spec is the OCI configuration without its seccomp profile, which is by far its longest part; Filter is the profile, compiled.
	Spec   *specs.Spec `json:"spec"`
	Filter []byte      `json:"filter,omitempty"`
}

// LogConfig says where output goes.
type LogConfig struct {
	Dir      string `json:"dir"`
	MaxSize  int64  `json:"maxSize,omitempty"`
	MaxFiles int    `json:"maxFiles,omitempty"`
}

// Adoption is what a shim waits for on descriptor 3, with two files: the listening socket of its task's folder, and where it complains. The
// connection that brought it is the shim's first client. A connection that ends before it ends the shim.
//
// Before it may come one that has Prepare and no files: the shim makes namespaces for a container of that range of ids, and answers with a
// Response and the network namespace.
type Adoption struct {
	Dir      string        `json:"dir,omitempty"`
	Prepare  *rootfs.IDMap `json:"prepare,omitempty"`
	Prepared bool          `json:"prepared,omitempty"` // the container gets the namespaces that were made ahead
}

// FitsPrepared says for which range of ids a user and a network namespace that were made ahead can stand in for those that a configuration
// wants new; where it wants something else: false.
func FitsPrepared(spec *specs.Spec) (ids rootfs.IDMap, ok bool) {
	l := spec.Linux
	if l == nil || len(l.UIDMappings) != 1 || len(l.GIDMappings) != 1 || l.UIDMappings[0] != l.GIDMappings[0] || l.UIDMappings[0].ContainerID != 0 {
		return ids, false
	}
	own := 0
	for _, ns := range l.Namespaces {
		if ns.Path == "" && (ns.Type == specs.UserNamespace || ns.Type == specs.NetworkNamespace) {
			own++
		}
	}
	return rootfs.IDMap{Base: l.UIDMappings[0].HostID, Size: l.UIDMappings[0].Size}, own == 2
}

// Name is what ps shows of the shim of a task: the beginning of its container's id.
func Name(dir string) string {
	id := filepath.Base(dir)
	return "oar " + id[:min(len(id), 11)]
}

// Environment is a shim's: the Go runtime's settings. A shim allocates little and lives long: its memory is collected early; two
// processors are enough to copy output. The path is criu's.
func Environment() []string {
	return []string{"GOMAXPROCS=2", "GOGC=60", "GOMEMLIMIT=24MiB", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
}

// Exit is how a container's first process ended.
type Exit struct {
	Code      int       `json:"code"`
	Signal    int       `json:"signal,omitempty"`
	At        time.Time `json:"at"`
	OOMKilled bool      `json:"oomKilled,omitempty"`
	OOMKills  uint64    `json:"oomKills,omitempty"`
	OOMNoted  uint64    `json:"oomNoted,omitempty"`  // kills that an engine has taken note of while the container lived
	OOMVictim string    `json:"oomVictim,omitempty"` // name of the process that was killed last for want of memory
	Started   bool      `json:"started"`

	Memory    *why.Memory    `json:"memory,omitempty"`    // of an end that is not a plain one
	Processes *why.Processes `json:"processes,omitempty"` // where the limit was in the way

	OutputLost int64 `json:"outputLost,omitempty"` // bytes of output that the log lacks, and does not tell of

	Execs []ExecState `json:"execs,omitempty"` // that an engine's next life wants to know
}

// The protocol: each side sends frames, a length (u32, network order) and as many bytes of JSON; descriptors travel with a frame's first
// byte. A request has a number, its response the same; several are under way at a time.
//
//	engine                                shim
//	  {prepare} ───────────────────────────▶  namespaces made ahead (a spare shim only)
//	  ◀─────── {} + the network namespace
//	  adoption + listening socket + log ───▶
//	  {1, create} ─────────────────────────▶  namespaces made, process waits
//	  ◀──────────── {1, {pid}} + console
//	  {2, start} + sockets to keep ────────▶  execve
//	  {3, wait} ───────────────────────────▶
//	  ◀──────────── {3, oom}                  a process was killed for want of memory; the wait goes on
//	  {7, noted, kills} ───────────────────▶  not to be told again
//	  {4, exec, process} + 3 streams ──────▶
//	  ◀──────────── {4, {pid}} + console
//	  {5, execWait} ───────────────────────▶
//	  ◀──────────── {5, exit}                 the exec has ended
//	  ◀──────────── {3, exit}                 the container has ended, output complete, exit.json written
//	  {8, checkpoint} ─────────────────────▶  written to disk; it ends then, or goes on
//	  {9, keep} + sockets ─────────────────▶  kept instead of those before
//	  {1, kept} ───────────────────────────▶  asked by an engine's next life
//	  ◀──────────── {1} + the sockets
//	  {6, delete} ─────────────────────────▶  cgroup removed, the shim ends
const (
	MethodCreate     = "create"
	MethodStart      = "start"
	MethodState      = "state"
	MethodKill       = "kill"
	MethodWait       = "wait"
	MethodStdin      = "stdin"
	MethodCloseStdin = "closeStdin"
	MethodResize     = "resize"
	MethodNoted      = "noted"
	MethodExec       = "exec"
	MethodExecs      = "execs"
	MethodExecWait   = "execWait"
	MethodExecKill   = "execKill"
	MethodCheckpoint = "checkpoint"
	MethodKeep       = "keep"
	MethodKept       = "kept"
	MethodDelete     = "delete"
)

// Request is one call; fields that a method does not need are left out.
type Request struct {
	N       uint64         `json:"n"`
	Method  string         `json:"method"`
	Signal  int            `json:"signal,omitempty"`
	All     bool           `json:"all,omitempty"`
	Rows    uint16         `json:"rows,omitempty"`
	Cols    uint16         `json:"cols,omitempty"`
	Exec    string         `json:"exec,omitempty"`
	Process *specs.Process `json:"process,omitempty"`
	Env     []string       `json:"env,omitempty"`     // of create: what the process's environment has besides, and no disk
	Streams int            `json:"streams,omitempty"` // bit i: stream i's descriptor travels along
	Kills   uint64         `json:"kills,omitempty"`
	Restore *Restore       `json:"restore,omitempty"` // of create: the checkpoint that it goes on from
	// Checkpoint is what checkpoint makes.
	Checkpoint *Checkpoint `json:"checkpoint,omitempty"`
	// Note is what an engine's next life gets to know of an exec, in words of the engine; none: it is not told of it.
	Note json.RawMessage `json:"note,omitempty"`
}

// Response is one answer.
type Response struct {
	N        uint64    `json:"n"`
	Error    string    `json:"error,omitempty"`
	Code     int       `json:"code,omitempty"`  // with Error: 126 or 127 where a program could not be executed
	Cause    why.Cause `json:"cause,omitempty"` // and the kind of the reason
	Pid      int       `json:"pid,omitempty"`
	Started  bool      `json:"started,omitempty"`
	Exit     *Exit     `json:"exit,omitempty"`
	Warnings []string  `json:"warnings,omitempty"`
	Noted    uint64    `json:"noted,omitempty"` // kills that an engine has taken note of

	OOM   *OOM        `json:"oom,omitempty"` // a notice: the request's answer is still to come
	Execs []ExecState `json:"execs,omitempty"`
}

// WriteJSON writes a file as a whole: data, rename.
func WriteJSON(path string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if err := os.WriteFile(path+".part", b, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".part", path)
}

// ReadJSON reads one.
func ReadJSON(path string, v any) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return json.Unmarshal(b, v)
}

// Damaged says that a file was read, and is not what WriteJSON writes.
func Damaged(err error) bool {
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	return errors.As(err, &syntax) || errors.As(err, &kind)
}

func (s *Server) path(name string) string { return filepath.Join(s.dir, name) }
