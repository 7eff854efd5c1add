// Package test holds the end-to-end tests: scripts that drive the built binaries as a person would, in a network and mount namespace of
// their own, with a real registry, real clients and real Debian software, and an audit at the end that nothing was left behind.
package test
