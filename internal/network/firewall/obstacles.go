package firewall

import (
	"fmt"

	"github.com/google/nftables"
)

// Obstacles names chains of others that drop whatever nobody accepts on its way through the host. Nothing here overrides them.
func (t *Table) Obstacles() ([]string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	chains, err := t.conn.ListChains()
	if err != nil {
		return nil, fmt.Errorf("list the chains of nftables: %w", err)
	}
	var out []string
	for _, c := range chains {
		forwards := c.Hooknum != nil && *c.Hooknum == *nftables.ChainHookForward && c.Type == nftables.ChainTypeFilter
		drops := c.Policy != nil && *c.Policy == nftables.ChainPolicyDrop
		if forwards && drops && c.Table.Name != t.name && family(c.Table.Family) != "" {
			out = append(out, family(c.Table.Family)+" "+c.Table.Name+" "+c.Name)
		}
	}
	return out, nil
}

// family is nft's word for a family whose chains packets of containers pass.
func family(f nftables.TableFamily) string {
	switch f {
	case nftables.TableFamilyIPv4:
		return "ip"
	case nftables.TableFamilyIPv6:
		return "ip6"
	case nftables.TableFamilyINet:
		return "inet"
	}
	return ""
}
