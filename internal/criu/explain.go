package criu

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrUnfit says that criu is not there, or does not fit the kernel.
var ErrUnfit = errors.New("criu cannot be used on this machine")

// unfit are criu's last words where it does not understand the kernel.
func unfit(text string) bool {
	return strings.Contains(text, "vdso symtable") || strings.Contains(text, "vDSO")
}

// Explain adds to an error of Dump or Restore what to do about it, where criu does not fit the kernel.
func Explain(ctx context.Context, program string, err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, exec.ErrNotFound) {
		return fmt.Errorf("%w: the program criu is not there: install the package criu", ErrUnfit)
	}
	if !unfit(err.Error()) {
		return err
	}
	version, _ := Version(ctx, program)
	var u unix.Utsname
	_ = unix.Uname(&u)
	return fmt.Errorf("%w: criu %d.%d does not understand the vDSO of Linux %s, which it has to find in each process: install criu 4.1 or later (%w)", ErrUnfit,
		version/10000, version/100%100, unix.ByteSliceToString(u.Release[:]), err)
}
