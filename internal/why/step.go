package why

import "strings"

// Step is why the program of a build's step was not run, or who ended it, with ": " before it: what BuildKit's error says of it besides its exit
// status; "" where that is all.
func Step(failed error) string {
	_, said, ok := strings.Cut(failed.Error(), "did not complete successfully: ")
	if !ok || strings.HasPrefix(said, "exit code: ") {
		return ""
	}
	return ": " + said
}
