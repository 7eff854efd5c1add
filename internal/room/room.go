// Package room knows the errors of a file system that has none left.
package room

import (
	"errors"

	"golang.org/x/sys/unix"
)

// Advice is what to do about it.
const Advice = "free space, or remove what is not needed (wherry system prune)"

// Lacks says that a file system was full, or somebody's part of it was.
func Lacks(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }
