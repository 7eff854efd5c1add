package monitor

import "syscall"

// credential has a process run as one id.
func credential(id uint32) *syscall.Credential {
	return &syscall.Credential{Uid: id, Gid: id, NoSetGroups: true}
}
