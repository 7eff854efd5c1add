// Package why names the cause of a container's end.
//
// Evidence is what was seen of one life of a container: how its first process ended, what the engine was asked for and by whom, what the
// kernel has told, its last words. Judge turns it into a Verdict: one cause, the facts that speak for it, and what to do. Both are plain
// values: nothing here looks at the machine, keeps state or changes what it is given, and all of it is safe for many goroutines.
package why

import "time"

// Evidence is what was seen of one life of a container and of its end; the zero value of a field says that there was nothing of the kind.
type Evidence struct {
	Started time.Time `json:",omitzero"` // zero: it never ran
	Ended   time.Time `json:",omitzero"`
	Code    int       // exit code; 128+n for signal n
	Signal  int       `json:",omitempty"` // what ended the first process; 0: it ended by itself
	Program string    `json:",omitempty"` // name of the first process

	Failure   *Failure   `json:",omitempty"` // it could not be started
	Asks      []Ask      `json:",omitempty"` // what the engine was asked to do to it, in order
	Sender    *Sender    `json:",omitempty"` // who sent the signal, as the kernel has told
	Inner     *Inner     `json:",omitempty"` // the last process but the first that a signal ended
	Memory    *Memory    `json:",omitempty"`
	Processes *Processes `json:",omitempty"`
	Health    *Health    `json:",omitempty"`
	Lines     []string   `json:",omitempty"` // the last of its output

	// Lost: the process beside it that saw to it was gone. Rebooted: the machine was started anew while it ran. HostPids: it shared the host's
	// process namespace, so that its own processes could end its first one.
	Lost, Rebooted, HostPids bool `json:",omitempty"`
}

// Failure is a start that did not come about.
type Failure struct {
	Kind Cause // one of those for starts
	Text string
}

// Client is a program that asked the engine for something.
type Client struct {
	Pid     int    `json:",omitempty"`
	UID     uint32 `json:",omitempty"`
	Program string `json:",omitempty"` // "" where the process was gone before it could be looked at

	Certificate string `json:",omitempty"` // of a client that came over the network from Address
	Address     string `json:",omitempty"`
}

// What an Ask is for.
const (
	AskStop      = "stop"
	AskKill      = "kill"
	AskRestart   = "restart"
	AskRemove    = "rm -f"
	AskDump      = "checkpoint"   // it has been written into one, and ends
	AskUnhealthy = "on-unhealthy" // of the engine itself
	AskShutdown  = "shutdown"     // of the host, by the engine itself
)

// Ask is a signal that the engine sent, and why.
type Ask struct {
	For     string
	Signal  int
	At      time.Time
	By      *Client `json:",omitempty"` // nil: nobody, the engine did it by itself
	Handled *bool   `json:",omitempty"` // whether the first process had a handler for it; nil: not known

	Checkpoint string `json:",omitempty"` // its name
	Dir        string `json:",omitempty"` // where it is, if not with the container
}

// Where a signal came from.
const (
	FromKernel = "kernel"    // the process's own fault, found by the kernel
	FromItself = "itself"    // the process sent it to itself
	FromInside = "container" // another process of the container
	FromEngine = "engine"    // the engine or its shim
	FromHost   = "host"      // some other process of this machine
)

// Sender is who sent a signal.
type Sender struct {
	Signal    int
	From      string
	Pid       int    `json:",omitempty"`
	UID       uint32 `json:",omitempty"`
	Program   string `json:",omitempty"`
	Parent    string `json:",omitempty"` // who had started it
	ParentPid int    `json:",omitempty"`
	Code      int    `json:",omitempty"` // si_code (sigaction(2))
	Address   uint64 `json:",omitempty"` // of a fault
	Call      *int   `json:",omitempty"` // number of the system call that a filter forbids
	CallName  string `json:",omitempty"`
}

// Inner is a process of the container, not its first, that a signal ended.
type Inner struct {
	Pid     int
	Program string
	By      Sender
}

// Memory is what the container used and was allowed.
type Memory struct {
	Limit, Peak uint64    `json:",omitempty"` // bytes; 0: none, or not known
	Kills       uint64    `json:",omitempty"` // processes that the kernel killed because of the limit
	Victim      string    `json:",omitempty"` // the last of them, as far as the kernel says
	VictimPid   int       `json:",omitempty"`
	First       bool      `json:",omitempty"` // the victim was the first process
	Host        bool      `json:",omitempty"` // it was the machine that ran out of memory
	Top         []Process `json:",omitempty"` // the largest processes at the last kill
}

// Process is one of a list.
type Process struct {
	Pid      int
	Name     string
	Resident uint64 // bytes
}

// Processes is the limit of processes, and how often it was in the way.
type Processes struct{ Limit, Refused uint64 }

// Health is what the last probes said.
type Health struct {
	Status string
	Streak int // of failures
	At     time.Time
	Code   int
	Output string
}

// Verdict is one cause of an end with what speaks for it.
type Verdict struct {
	Cause   Cause
	Summary string   // a sentence
	Facts   []string `json:",omitempty"`
	Advice  string   `json:",omitempty"` // what to do; "" where nothing is wrong
}

// Cause is the name of a cause; names do not change.
type Cause string

// The causes.
const (
	Running  Cause = "running"
	Created  Cause = "never-started"
	Finished Cause = "finished" // by itself, with 0
	Failed   Cause = "error"    // by itself, with another code

	Stopped     Cause = "stopped"      // as asked
	StopTimeout Cause = "stop-timeout" // it did not obey its stop signal in time
	Killed      Cause = "killed"       // a client of the engine sent a signal
	Removed     Cause = "removed"
	Unhealthy   Cause = "unhealthy"

	Checkpointed Cause = "checkpointed"

	OOM      Cause = "oom"       // the first process, by the container's limit
	OOMChild Cause = "oom-child" // another one, and the first ended after it
	HostOOM  Cause = "host-oom"  // the machine was out of memory

	HostKilled   Cause = "killed-from-host"
	InsideKilled Cause = "killed-from-inside"
	Signalled    Cause = "signal" // nobody knows whose
	ChildKilled  Cause = "child-killed"

	Crashed      Cause = "crash"
	ChildCrashed Cause = "child-crash"
	Seccomp      Cause = "seccomp"
	Limited      Cause = "resource-limit" // of processor time or file size (setrlimit(2))
	DiskFull     Cause = "disk-full"
	ProcessLimit Cause = "process-limit"

	NotFound           Cause = "not-found"
	NotExecutable      Cause = "not-executable"
	MissingInterpreter Cause = "missing-interpreter"
	WrongArchitecture  Cause = "wrong-architecture"
	ScriptCRLF         Cause = "crlf-script"
	NotAProgram        Cause = "not-a-program"
	NoUser             Cause = "no-such-user"
	NoDirectory        Cause = "no-such-directory"
	NotStarted         Cause = "not-started" // for another reason

	Rebooted Cause = "host-restarted"
	Lost     Cause = "supervisor-lost"
)

// Report is what is known of a container's ends.
type Report struct {
	ID, Name string
	Status   string
	Started  time.Time `json:",omitzero"` // of the present life, where there is one
	Verdict            // of the last end; of a running container: that it runs
	Loop     *Loop     `json:",omitempty"`
	Deaths   []Death   // newest first
}

// Death is one end.
type Death struct {
	Verdict
	Evidence Evidence
}

// Loop is a container that ends again and again.
type Loop struct {
	Restarts  int           // since somebody started it
	Lives     int           // that are known
	Short     time.Duration // the shortest and longest of them
	Long      time.Duration
	NextAfter time.Duration `json:",omitempty"` // the wait before the next start
}
