package firewall

import (
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// Packet is the first of a connection, as chains see it that decide whether it passes.
type Packet struct {
	Forward bool // through the host, not to it
	Mapped  bool // its destination was another one until now: that of a published port
	In, Out string
	Proto   uint8
	From    netip.Addr // not valid: anybody's
	To      netip.AddrPort
}

// Outcome is what foreign rules do with a packet.
type Outcome int

// Outcomes. What a rule of an unknown kind would do is not guessed.
const (
	Passes Outcome = iota
	Drops
	Unsure
)

// Judgement is that of one base chain.
type Judgement struct {
	Chain   string // family, table and name
	Outcome Outcome
}

// Judge asks the filter chains of others what they do with a packet, by reading their rules as the kernel would. Those that let it pass are
// left out.
func Judge(own string, p Packet) (out []Judgement, err error) {
	c, err := nftables.New()
	if err != nil {
		return nil, fmt.Errorf("open a socket to the kernel's nftables: %w", err)
	}
	chains, err := c.ListChains()
	if err != nil {
		return nil, fmt.Errorf("list the chains of nftables: %w", err)
	}
	hook := *nftables.ChainHookInput
	if p.Forward {
		hook = *nftables.ChainHookForward
	}
	for _, chain := range chains {
		f := family(chain.Table.Family)
		wrong := f == "ip" && p.To.Addr().Is6() || f == "ip6" && p.To.Addr().Is4()
		if f == "" || wrong || chain.Hooknum == nil || *chain.Hooknum != hook || chain.Type != nftables.ChainTypeFilter || chain.Table.Name == own {
			continue
		}
		j := judge{conn: c, packet: p, table: chain.Table}
		ends, err := j.walk(chain.Name, 0)
		if err != nil {
			return nil, fmt.Errorf("read the rules of %s %s: %w", f, chain.Table.Name, err)
		}
		if ends&falls != 0 {
			ends &^= falls
			if chain.Policy != nil && *chain.Policy == nftables.ChainPolicyDrop {
				ends |= drops
			} else {
				ends |= accepts
			}
		}
		result := Judgement{Chain: f + " " + chain.Table.Name + " " + chain.Name, Outcome: Unsure}
		switch ends {
		case accepts:
			continue
		case drops:
			result.Outcome = Drops
		}
		out = append(out, result)
	}
	return out, nil
}

// ends are the ways that a packet may leave a chain; rules that are not understood make several possible.
type ends int

const (
	accepts ends = 1 << iota
	drops
	falls // out of the chain's end
)

// judge reads the chains of one table.
type judge struct {
	conn   *nftables.Conn
	packet Packet
	table  *nftables.Table
}

// mostDepth is how deep the kernel lets chains jump into each other.
const mostDepth = 16

func (j *judge) walk(chain string, depth int) (possible ends, err error) {
	if depth > mostDepth {
		return accepts | drops | falls, nil
	}
	rules, err := j.conn.GetRules(j.table, &nftables.Chain{Name: chain, Table: j.table})
	if err != nil {
		return 0, err
	}
	for _, r := range rules {
		match, verdict := j.rule(r)
		if match == no || verdict == nil {
			continue
		}
		var does ends
		goesOn := false
		switch verdict.Kind {
		case expr.VerdictAccept:
			does = accepts
		case expr.VerdictDrop:
			does = drops
		case expr.VerdictReturn:
			does = falls
		case expr.VerdictJump, expr.VerdictGoto:
			if does, err = j.walk(verdict.Chain, depth+1); err != nil {
				return 0, err
			}
			if verdict.Kind == expr.VerdictJump {
				goesOn = does&falls != 0
				does &^= falls
			}
		case expr.VerdictContinue, expr.VerdictBreak:
			continue
		default: // a program decides
			does = accepts | drops
		}
		possible |= does
		if match == yes && !goesOn {
			return possible, nil
		}
	}
	return possible | falls, nil
}
