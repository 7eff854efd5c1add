package shim

import (
	"encoding/json"

	"wherry.dev/wherry/internal/cgroup"
)

// warmUp has one of everything that the first request of a container brings.
const warmUp = `{"id":"x","rootfs":{"lower":["/"],"idMap":{}},"log":{},"filter":"AA==","spec":{"process":{"user":{"additionalGids":[1]},"args":["x"],
"capabilities":{"bounding":["x"]},"rlimits":[{}],"oomScoreAdj":0},"root":{},"mounts":[{"options":["x"],"uidMappings":[{}]}],"annotations":{"x":"x"},
"linux":{"uidMappings":[{}],"sysctl":{"x":"x"},"resources":{"devices":[{}],"memory":{"limit":1},"cpu":{"quota":1},"pids":{"limit":1},"blockIO":{}},
"namespaces":[{}],"devices":[{}],"maskedPaths":["x"]}}}`

// Warm does beforehand what encoding/json does at the first sight of each type, and finds the control groups: a shim that waits for its container
// has the time.
func Warm() {
	var c Config
	_ = json.Unmarshal([]byte(warmUp), &c)
	var r Request
	_ = json.Unmarshal([]byte(`{"n":1,"method":"create"}`), &r)
	_, _ = json.Marshal(Response{Warnings: []string{"x"}})
	_, _ = json.Marshal(Exit{})
	_ = cgroup.UnifiedRoot()
}
