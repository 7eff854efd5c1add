package container

import (
	"crypto/rand"
	"encoding/hex"
	mathrand "math/rand/v2"
	"strings"
)

const adjectives = `able agile airy amber ample apt azure bold brave breezy bright brisk calm candid chief clear clever cosy crisp curious daring deft
eager early easy even fair famous fast fine firm fleet fond frank free fresh gentle glad golden good grand great green handy happy hardy
hearty honest humble jolly keen kind lively loyal lucid lucky mellow merry mighty mild modest neat nimble noble patient plain polite proud
quick quiet rapid ready robust rosy sage serene sharp silver simple sleek smart snug sober solid spry stable steady still strong sturdy
sunny swift tender tidy true trusty upbeat vivid warm wise witty young zesty`

const nouns = `anchor beacon bay boat bollard bow breeze bridge buoy cabin canal canoe captain channel coast compass coral cove crew current cutter deck
delta dinghy dock dolphin drift estuary ferry fjord fleet foghorn galley gannet gull gunwale halyard harbour haven helm heron hull
inlet island jetty keel kelp ketch lagoon lantern lighthouse lock lookout lugger marina mast mooring narwhal oar orca otter paddle pearl
pelican petrel pier pilot plover porpoise port puffin punt quay raft reef rigging river rope rower rudder sail salmon schooner seal
shallop shoal shore skiff sloop spray starboard stern sextant tern tide tiller trawler wake wave wharf whale wherry yawl`

// newName invents a name of two words; later tries get a number.
func newName(try int) string {
	a, n := strings.Fields(adjectives), strings.Fields(nouns)
	name := a[mathrand.IntN(len(a))] + "_" + n[mathrand.IntN(len(n))]
	if try > 0 {
		name += string(rune('0' + mathrand.IntN(10)))
	}
	return name
}

// newID is 64 hex digits; the first twelve are never a number, so that a short id is no port or count by mistake.
func newID() string {
	var b [32]byte
	for {
		_, _ = rand.Read(b[:])
		id := hex.EncodeToString(b[:])
		if strings.ContainsAny(id[:12], "abcdef") {
			return id
		}
	}
}

// validName is Docker's rule: a letter or digit, then at least one more of these, "_", "." and "-".
func validName(name string) bool {
	if len(name) < 2 || !alphanumeric(name[0]) {
		return false
	}
	for i := range len(name) {
		if c := name[i]; !alphanumeric(c) && c != '_' && c != '.' && c != '-' {
			return false
		}
	}
	return true
}

func alphanumeric(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}
