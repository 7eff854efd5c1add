package registry

import "slices"

// Trusting is a pool that may speak to one more host without TLS, or with a certificate that nobody has signed.
func (p *Pool) Trusting(host string) *Pool {
	o := p.o
	o.Insecure = append(slices.Clone(o.Insecure), host)
	return NewPool(o)
}
