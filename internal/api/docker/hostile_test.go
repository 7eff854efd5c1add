package docker_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// TestHostileValues: what no client may mean is refused with the value's name, at once, and changes nothing.
func TestHostileValues(t *testing.T) {
	e := start(t)
	id := e.create(t, `"Cmd":["sleep","100"]`)
	create := func(host string) [3]string {
		return [3]string{"POST", "/containers/create", `{"Image":"busybox:test","HostConfig":{` + host + `}}`}
	}
	rows := map[[3]string]string{
		create(`"IpcMode":"everything"`):                                       "IPC mode",
		create(`"PidMode":"mine"`):                                             "PID mode",
		create(`"UTSMode":"x"`):                                                "UTS mode",
		create(`"UsernsMode":"x"`):                                             "userns mode",
		create(`"CgroupnsMode":"x"`):                                           "cgroup namespace mode",
		create(`"Isolation":"hyperv"`):                                         "isolation",
		create(`"RestartPolicy":{"Name":"sometimes"}`):                         "sometimes",
		create(`"RestartPolicy":{"Name":"on-failure","MaximumRetryCount":-1}`): "",
		create(`"RestartPolicy":{"Name":"always","MaximumRetryCount":3}`):      "",
		create(`"LogConfig":{"Type":"nowhere"}`):                               "nowhere",
		create(`"Runtime":"nothing"`):                                          "nothing",
		create(`"Mounts":[{"Type":"wish","Target":"/x"}]`):                     "wish",
		create(`"Mounts":[{"Type":"bind","Source":"/tmp","Target":"/x","BindOptions":{"Propagation":"x"}}]`): "propagation",
		create(`"Mounts":[{"Type":"tmpfs","Target":"/x","TmpfsOptions":{"SizeBytes":-1}}]`):                  "",
		create(`"Memory":-1`):                                                                "",
		create(`"Memory":1`):                                                                 "",
		create(`"Memory":9223372036854775808`):                                               "",
		create(`"MemorySwappiness":-2`):                                                      "",
		create(`"MemorySwappiness":101`):                                                     "",
		create(`"NanoCpus":-1`):                                                              "",
		create(`"CpuShares":-1`):                                                             "",
		create(`"CpuPeriod":-1`):                                                             "",
		create(`"CpusetCpus":"0-99999"`):                                                     "",
		create(`"CpusetCpus":"-1"`):                                                          "",
		create(`"ShmSize":-1`):                                                               "",
		create(`"OomScoreAdj":2000`):                                                         "",
		create(`"BlkioWeight":5`):                                                            "",
		create(`"Ulimits":[{"Name":"nofile","Soft":5,"Hard":1}]`):                            "",
		create(`"Ulimits":[{"Name":"nothing","Soft":1,"Hard":1}]`):                           "",
		create(`"PortBindings":{"99999/tcp":[{}]}`):                                          "",
		create(`"PortBindings":{"80/tcp":[{"HostPort":"-1"}]}`):                              "",
		create(`"PortBindings":{"80/tcp":[{"HostIp":"nowhere"}]}`):                           "",
		create(`"Sysctls":{"kernel.core_pattern":"|/evil"}`):                                 "",
		create(`"Devices":[{"PathOnHost":"/dev/null","CgroupPermissions":"x"}]`):             "",
		create(`"CapAdd":["CAP_EVERYTHING"]`):                                                "",
		create(`"ExtraHosts":["nocolon"]`):                                                   "",
		create(`"Dns":["nowhere"]`):                                                          "",
		create(`"SecurityOpt":["surprise=1"]`):                                               "",
		{"POST", "/containers/create", `{"Image":"busybox:test","StopSignal":"SIGNOTHING"}`}: "SIGNOTHING",
		{"POST", "/containers/create", `{"Image":"busybox:test","StopTimeout":"soon"}`}:      "",
		{"POST", "/containers/create", `{"Image":"busybox:test","Healthcheck":{"Test":["SOMETIMES"]}}`}: "SOMETIMES",
		{"POST", "/containers/create", `{"Image":"busybox:test","Healthcheck":{"Interval":-5}}`}:        "Interval",
		{"POST", "/containers/create", `{"Image":"busybox:test","Healthcheck":{"Retries":-1}}`}:         "Retries",
		{"POST", "/containers/create", `{"Image":"busybox:test","WorkingDir":"relative"}`}:              "",
		{"POST", "/containers/create", `{"Image":"busybox:test","Env":["=x"]}`}:                         "",
		{"POST", "/containers/create?name=..", `{"Image":"busybox:test"}`}:                              "..",
		{"POST", "/containers/create?name=a/b", `{"Image":"busybox:test"}`}:                             "a/b",
		{"POST", "/containers/create?name=" + strings.Repeat("x", 5000), `{"Image":"busybox:test"}`}:    "",
		{"POST", "/containers/create", `{"Image":"../../etc/passwd"}`}:                                  "",
		{"POST", "/containers/" + id + "/kill?signal=-9", ""}:                                           "-9",
		{"POST", "/containers/" + id + "/kill?signal=999", ""}:                                          "999",
		{"POST", "/containers/" + id + "/stop?t=soon", ""}:                                              "soon",
		{"POST", "/containers/" + id + "/resize?h=-1&w=1", ""}:                                          "",
		{"POST", "/containers/" + id + "/resize?h=70000&w=1", ""}:                                       "",
		{"POST", "/containers/" + id + "/rename", ""}:                                                   "name",
		{"POST", "/containers/" + id + "/update", `{"Memory":-5}`}:                                      "",
		{"POST", "/containers/" + id + "/update", `{"RestartPolicy":{"Name":"x"}}`}:                     "x",
		{"GET", "/containers/" + id + "/logs?stdout=1&since=yesterday", ""}:                             "yesterday",
		{"GET", "/containers/" + id + "/logs?stdout=1&since=1.9999999999", ""}:                          "since",
		{"GET", "/containers/" + id + "/stats?stream=1&one-shot=1", ""}:                                 "one-shot",
		{"GET", "/containers/json?limit=x", ""}:                                                         "limit",
		{"GET", "/containers/json?filters=%7B%22status%22%3A%5B%22asleep%22%5D%7D", ""}:                 "asleep",
		{"GET", "/containers/json?filters=%7B%22name%22%3A%5B%22%28%22%5D%7D", ""}:                      "name",
		{"GET", "/images/json?filters=%7B%22colour%22%3A%5B%22red%22%5D%7D", ""}:                        "colour",
		{"GET", "/volumes?filters=%7B%22colour%22%3A%5B%22red%22%5D%7D", ""}:                            "colour",
		{"GET", "/networks?filters=%7B%22colour%22%3A%5B%22red%22%5D%7D", ""}:                           "colour",
		{"GET", "/system/df?type=everything", ""}:                                                       "everything",
		{"GET", "/images/busybox:test/json?platform=%7B%22os%22%3A%22linux%22%7D", ""}:                  "architecture",
		{"GET", "/images/busybox:test/attestations?platform=linux/amd64&platform=linux/arm64", ""}:      "one platform",
		{"GET", "/v1.54/images/json?identity=1", ""}:                                                    "manifests=1",
		{"POST", "/networks/create", `{"Name":""}`}:                                                     "",
		{"POST", "/networks/create", `{"Name":"x","Driver":"teleport"}`}:                                "teleport",
		{"POST", "/networks/create", `{"Name":"x","IPAM":{"Config":[{"Subnet":"10.0.0.0/99"}]}}`}:       "",
		{"POST", "/networks/create", `{"Name":"x","Scope":"swarm"}`}:                                    "swarm",
		{"POST", "/volumes/create", `{"Name":"../x"}`}:                                                  "",
		{"POST", "/exec/nosuch/resize?h=-1&w=-1", ""}:                                                   "",
		{"GET", "/%2e%2e/%2e%2e/etc/passwd", ""}:                                                        "",
		{"GET", "/containers/%2e%2e/json", ""}:                                                          "",
		{"GET", "/containers/" + strings.Repeat("x", 100000) + "/json", ""}:                             "",
	}
	for row, names := range rows {
		status, body := e.call(t, row[0], row[1], row[2])
		var m struct{ Message string }
		if status < 400 || status >= 500 && status != 503 || json.Unmarshal([]byte(body), &m) != nil || m.Message == "" || !strings.Contains(m.Message, names) {
			t.Errorf("%s %.80s %s: %d %.200s, want a refusal with %q", row[0], row[1], row[2], status, body, names)
		}
	}
	var list []struct {
		ID string `json:"Id"`
	}
	e.want(t, 200, "GET", `/containers/json?all=1&filters={"ancestor":["busybox:test"]}`, "", &list)
	for _, c := range list {
		if c.ID != id {
			t.Errorf("container %s was made", c.ID)
		}
	}
}

// TestManyFilters: a long list of filters and deep JSON cost what they are long, and no more.
func TestManyFilters(t *testing.T) {
	e := start(t)
	var names []string
	for i := range 2000 {
		names = append(names, fmt.Sprintf("%q", fmt.Sprint("n", i)))
	}
	e.want(t, 200, "GET", `/containers/json?filters={"label":[`+strings.Join(names, ",")+`]}`, "", nil)
	if status, _ := e.call(t, "GET", "/containers/json?filters="+strings.Repeat("[", 100000), ""); status != 400 {
		t.Errorf("deep filters: %d", status)
	}
	if status, _ := e.call(t, "GET", "/containers/json?filters="+strings.Repeat("x", 300<<10), ""); status != 431 {
		t.Errorf("a line of 300 KiB: %d", status)
	}
}
