package explain

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"slices"
	"strings"
)

// sealed begins values that are written down as a hash.
const sealed = "hash:"

// longestValue is what is written down of a value as it is.
const longestValue = 200

// seal makes of a value what may be written down: itself, unless it is long or its name or form say that it may be secret.
func seal(salt []byte, name, value string) string {
	if len(value) <= longestValue && !maybeSecret(name, value) {
		return value
	}
	h := hmac.New(sha256.New, salt)
	h.Write([]byte(name + "\x00" + value))
	return sealed + hex.EncodeToString(h.Sum(nil)[:12])
}

func maybeSecret(name, value string) bool {
	name = strings.ToLower(name)
	for _, word := range []string{"pass", "pwd", "secret", "token", "key", "auth", "cred", "private", "cert"} {
		if strings.Contains(name, word) {
			return true
		}
	}
	_, rest, address := strings.Cut(value, "://")
	return address && strings.Contains(rest, "@") || strings.Contains(value, "-----BEGIN") || strings.HasPrefix(value, sealed)
}

func sorted[T any](m map[string]T) []string { return slices.Sorted(maps.Keys(m)) }
