// Package access says who asks the engine for something, and what they may.
//
// A Caller is who stands at the other end of a connection, as the kernel or a verified certificate tells it. Rules are read from a file and give
// each caller a Right. Both are values; nothing is kept, and all methods are safe for many goroutines.
package access

import (
	"crypto/x509"
	"os"
	"slices"
	"strconv"
)

// containerIDs is where the containers' id ranges begin on the host.
const containerIDs = 0x10000000

// Caller is who asks. Either Certificate is set, or the ids are the kernel's.
type Caller struct {
	UID, GID  uint32
	Groups    []uint32 // beside GID
	PID       int32
	Contained bool   // it is a process of a container
	Container string // the id of that container; "" where it is none of this engine's
	Program   string // the path of its program when it connected; "" where that was not to be seen

	Certificate *Certificate
	Address     string // of a client that came over the network
}

// Certificate is what a client showed, after it was verified.
type Certificate struct {
	Name   string   // the subject's common name
	Names  []string // the other names: DNS, e-mail, address, URI
	Serial string
}

// OfCertificate is the caller that showed c.
func OfCertificate(c *x509.Certificate, address string) *Caller {
	names := slices.Concat(c.DNSNames, c.EmailAddresses)
	for _, ip := range c.IPAddresses {
		names = append(names, ip.String())
	}
	for _, u := range c.URIs {
		names = append(names, u.String())
	}
	return &Caller{UID: ^uint32(0), GID: ^uint32(0), Address: address,
		Certificate: &Certificate{Name: c.Subject.CommonName, Names: names, Serial: c.SerialNumber.Text(16)}}
}

// ID names the caller, the same in all of its requests: uid:1000, certificate:ci, container:8f3a…. What it makes belongs to this name. The ids of a
// container go to another one after it, so they do not name it.
func (c *Caller) ID() string {
	switch {
	case c.Container != "":
		return "container:" + c.Container
	case c.Certificate == nil:
		return "uid:" + strconv.FormatUint(uint64(c.UID), 10)
	case c.Certificate.Name != "":
		return "certificate:" + c.Certificate.Name
	case len(c.Certificate.Names) > 0:
		return "certificate:" + c.Certificate.Names[0]
	}
	return "certificate:serial " + c.Certificate.Serial
}

// Engine says that the caller is root on this machine, or the user that the engine runs as.
func (c *Caller) Engine() bool {
	return c.Certificate == nil && (c.UID == 0 || int64(c.UID) == int64(os.Geteuid()))
}

// In says that the caller is a member of a group.
func (c *Caller) In(gid uint32) bool {
	return c.Certificate == nil && (c.GID == gid || slices.Contains(c.Groups, gid))
}
