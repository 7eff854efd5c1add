// Package vm tests the engine on another kind of host than the one at hand: a virtual machine with Debian's own kernel, all control groups
// in the one tree of version 2, a real ext4, and a plug that can be pulled; and one of the other architecture. qemu emulates it (no KVM), so that it runs anywhere.
package vm
