package why

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// isCrash tells the signals that a process gets for what it does itself.
func isCrash(signal int) bool {
	switch unix.Signal(signal) {
	case unix.SIGSEGV, unix.SIGBUS, unix.SIGFPE, unix.SIGILL, unix.SIGTRAP, unix.SIGABRT, unix.SIGSYS:
		return true
	}
	return false
}

// forbidden is a system call that a seccomp filter answers with the process's end.
func forbidden(e *Evidence) (Verdict, bool) {
	if e.Signal != int(unix.SIGSYS) {
		return Verdict{}, false
	}
	call := "a system call"
	if s := e.Sender; s != nil && s.Call != nil {
		call = "the system call " + s.call()
	}
	return Verdict{Cause: Seccomp, Summary: fmt.Sprintf("%s made %s that its seccomp profile forbids, and the kernel ended it", e.program(), call),
		Facts:  []string{e.how()},
		Advice: "permit the call in a profile of its own (--security-opt seccomp=FILE); --security-opt seccomp=unconfined tells whether it is that"}, true
}

// limited is a limit of setrlimit(2).
func limited(e *Evidence) (Verdict, bool) {
	v := Verdict{Cause: Limited, Facts: []string{e.how()}}
	switch unix.Signal(e.Signal) {
	case unix.SIGXCPU:
		v.Summary, v.Advice = e.program()+" used more processor time than its limit permits", "raise --ulimit cpu"
	case unix.SIGXFSZ:
		v.Summary, v.Advice = e.program()+" wrote a file that is larger than its limit permits", "raise --ulimit fsize"
	default:
		return Verdict{}, false
	}
	return v, true
}

func crashed(e *Evidence) (Verdict, bool) {
	if !isCrash(e.Signal) || e.Sender != nil && (e.Sender.From == FromHost || e.Sender.From == FromInside) {
		return Verdict{}, false
	}
	v := Verdict{Cause: Crashed, Summary: e.program() + " crashed: " + crashText(e.Signal, e.Sender), Facts: []string{e.how()},
		Advice: "it is a fault of the program, or of an image for another processor: look at its output, and run it under a debugger"}
	if line := telling(e.Lines); line != "" {
		v.Facts = append(v.Facts, "its last words: "+line)
	}
	return v, true
}

// crashText says what a program did to get a signal.
func crashText(signal int, s *Sender) string {
	text := map[unix.Signal]string{
		unix.SIGSEGV: "it used memory that is not its own", unix.SIGBUS: "it used memory that is not there (a file that became shorter, or a full /dev/shm)",
		unix.SIGFPE: "it divided by zero", unix.SIGILL: "it came to an instruction that this processor does not know",
		unix.SIGTRAP: "it came to a breakpoint", unix.SIGABRT: "it gave up (abort)", unix.SIGSYS: "it made a system call that is forbidden",
	}[unix.Signal(signal)]
	text += " (" + Name(signal)
	if s != nil && s.From == FromKernel && (signal == int(unix.SIGSEGV) || signal == int(unix.SIGBUS)) {
		text += fmt.Sprintf(" at address %#x", s.Address)
	}
	return text + ")"
}

// signalled is a signal that no client of the engine has asked for.
func signalled(e *Evidence) (Verdict, bool) {
	if e.Signal == 0 {
		return Verdict{}, false
	}
	name := Name(e.Signal)
	v := Verdict{Cause: HostKilled, Facts: []string{e.how(), "no client had asked the engine for it, and the container's memory limit was not in the way"},
		Advice: "look on the host for who ends processes: a script, a person, a service manager; what ran was not at fault"}
	s := e.Sender
	switch {
	case s != nil && s.From == FromHost:
		v.Summary = fmt.Sprintf("%s ended it with %s", s.text(), name)
	case s != nil && s.From == FromInside:
		v.Cause, v.Summary = InsideKilled, fmt.Sprintf("another process of the container, %s, ended its first one with %s", s.text(), name)
		v.Advice = "see why that process does so"
	case s != nil && s.From == FromItself:
		v.Cause, v.Summary, v.Advice = InsideKilled, fmt.Sprintf("%s sent itself %s", e.program(), name), "see its output for the reason"
	case s != nil && s.From == FromEngine:
		v.Cause, v.Summary = Signalled, fmt.Sprintf("%s of the engine ended it with %s; why is not known", s.text(), name)
	case s != nil && s.From == FromKernel:
		v.Cause, v.Summary = Signalled, "the kernel ended it with "+name
		v.Advice = "look at the kernel's log (dmesg) of that time"
	case e.Signal == int(unix.SIGKILL) && !e.HostPids:
		v.Summary = "somebody on the host ended it with SIGKILL; who, is not known"
		v.Facts = append(v.Facts, "no process of the container can send SIGKILL to its first one")
	case e.Signal == int(unix.SIGPIPE):
		v.Cause, v.Summary, v.Advice = Signalled, e.program()+" wrote to a pipe or connection that nobody read any more (SIGPIPE)", "see who was to read it"
	default:
		v.Cause, v.Summary = Signalled, fmt.Sprintf("it was ended by %s; not known who sent it", name)
		v.Advice = "it may have been a process of the container or of the host"
	}
	return v, true
}

// text names a sender of this machine, and who had started it: it may be one of those programs that only send a signal.
func (s *Sender) text() string {
	program := s.Program
	if program == "" {
		program = "a process"
	}
	if s.From != FromHost {
		return fmt.Sprintf("%s (pid %d)", program, s.Pid)
	}
	text := fmt.Sprintf("%s on the host (pid %d, user %d", program, s.Pid, s.UID)
	if s.ParentPid > 1 && s.Parent != "" {
		text += fmt.Sprintf("; started by %s, pid %d", s.Parent, s.ParentPid)
	}
	return text + ")"
}

// call is the name of a system call, or its number.
func (s *Sender) call() string {
	if s.CallName != "" {
		return s.CallName
	}
	return fmt.Sprintf("number %d", *s.Call)
}

func (c *Client) text() string {
	switch {
	case c == nil:
		return "the engine"
	case c.Address != "":
		return fmt.Sprintf("a client at %s with the certificate %q", c.Address, c.Certificate)
	case c.Pid == 0:
		return "a client of the engine"
	case c.Program == "":
		return fmt.Sprintf("a client of the engine (pid %d, user %d)", c.Pid, c.UID)
	}
	return fmt.Sprintf("%s (pid %d, user %d)", c.Program, c.Pid, c.UID)
}

// innerDeath is a first process, as a rule a shell, that ended with the status of one that a signal had ended.
func innerDeath(e *Evidence) (Verdict, bool) {
	in := e.Inner
	signal := e.Code - 128
	if e.Signal != 0 || signal <= 0 || Name(signal) == "" {
		return Verdict{}, false
	}
	if in == nil || in.By.Signal != signal {
		if !isCrash(signal) {
			return Verdict{}, false
		}
		return Verdict{Cause: ChildCrashed, Summary: fmt.Sprintf("a program that %s ran crashed: %s", e.program(), crashText(signal, nil)), Facts: []string{
			fmt.Sprintf("exit code %d is what a shell ends with when %s ended the program that it ran; which one it was, the kernel has not told", e.Code, Name(signal))},
			Advice: "run that program alone, and look at its output"}, true
	}
	v := Verdict{Cause: ChildKilled, Facts: []string{fmt.Sprintf("exit code %d: %s ended with the status of a program that %s had ended", e.Code, e.program(), Name(signal))}}
	who := fmt.Sprintf("%s (pid %d), which %s ran,", in.Program, in.Pid, e.program())
	switch {
	case isCrash(signal) && in.By.From != FromHost && in.By.From != FromInside:
		v.Cause, v.Summary = ChildCrashed, fmt.Sprintf("%s crashed: %s", who, crashText(signal, &in.By))
		v.Advice = "it is a fault of that program: look at its output, and run it under a debugger"
		if signal == int(unix.SIGSYS) {
			v.Cause, v.Advice = Seccomp, "permit the call in a profile of its own (--security-opt seccomp=FILE)"
			if in.By.Call != nil {
				v.Summary = fmt.Sprintf("%s made the system call %s, which its seccomp profile forbids", who, in.By.call())
			}
		}
	case in.By.From == FromHost:
		v.Summary = fmt.Sprintf("%s was ended with %s by %s", who, Name(signal), in.By.text())
		v.Advice = "look on the host for who ends processes"
	default:
		v.Summary = fmt.Sprintf("%s was ended with %s by %s in the container", who, Name(signal), in.By.text())
		v.Advice = "see why that process does so"
	}
	return v, true
}

// shells is what shells end with when they cannot run what they are told to.
func shells(e *Evidence) (Verdict, bool) {
	v := Verdict{Facts: []string{fmt.Sprintf("exit code %d, as shells have it for this", e.Code)}}
	line := telling(e.Lines)
	switch e.Code {
	case 127:
		v.Cause, v.Summary, v.Advice = NotFound, e.program()+" could not find a program that it was to run", "check its spelling, the image's PATH, and whether the image has it"
	case 126:
		v.Cause, v.Summary, v.Advice = NotExecutable, e.program()+" could not execute a program that it was to run", "make it executable, and check that it is for this machine"
	default:
		return Verdict{}, false
	}
	if line != "" {
		v.Summary += ": " + line
	}
	return v, true
}

// Name is a signal's, "" of a number that is none.
func Name(signal int) string {
	if signal >= 34 && signal <= 64 {
		return fmt.Sprintf("SIGRTMIN+%d", signal-34)
	}
	return strings.ToUpper(unix.SignalName(unix.Signal(signal)))
}
