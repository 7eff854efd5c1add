package network

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"path/filepath"
)

// names are those of the engine's links and of its table. They follow from the state directory, so that engines live beside each other.
type names struct {
	table       string
	bridge      string    // of the default network
	bridges     string    // prefix of the other networks' bridges
	ends        string    // prefix of the host's ends of pairs
	annexes     [3]string // prefixes of further bridges and of the ends of the pairs that they hang on
	annexDigits int
	digits      int // of an id that follow a prefix: a link's name has at most 15 bytes
	defaultHost bool
}

func namesOf(state string) names {
	if path := filepath.Clean(state); path != "/run/wherry" {
		if abs, err := filepath.Abs(path); err == nil {
			path = abs
		}
		sum := sha256.Sum256([]byte(path))
		tag := hex.EncodeToString(sum[:3])
		return names{table: "wherry-" + tag, bridge: "w" + tag + "-0", bridges: "w" + tag + "-", ends: "v" + tag + "-", digits: 7,
			annexes: [3]string{"a" + tag + "-", "t" + tag + "-", "u" + tag + "-"}, annexDigits: 3}
	}
	return names{table: "wherry", bridge: "wherry0", bridges: "wh-", ends: "whv", digits: 12, annexes: [3]string{"wha", "wht", "whu"}, annexDigits: 8, defaultHost: true}
}

func (n names) bridgeOf(networkID string) string { return n.bridges + networkID[:n.digits] }

func (n names) endOf(endpointID string) string { return n.ends + endpointID[:n.digits] }

// newID is 64 hexadecimal digits of chance, as Docker's ids are.
func newID() string {
	var b [32]byte
	rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}
