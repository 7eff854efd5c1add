package cli

import (
	"encoding/csv"
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/blkiodev"
	"github.com/moby/moby/api/types/container"
)

// devices is what --device asks for: nodes, and names that the Container Device Interface resolves.
type devices struct {
	nodes    []container.DeviceMapping
	requests []container.DeviceRequest
}

func parseDevices(list []string) (devices, error) {
	d := devices{nodes: []container.DeviceMapping{}}
	var names []string
	for _, s := range list {
		if isDeviceName(s) {
			names = append(names, s)
			continue
		}
		m, err := parseDevice(s)
		if err != nil {
			return d, fmt.Errorf("--device %s: %w", s, err)
		}
		d.nodes = append(d.nodes, m)
	}
	if len(names) > 0 {
		d.requests = append(d.requests, container.DeviceRequest{Driver: "cdi", DeviceIDs: names})
	}
	return d, nil
}

// parseGPUs reads all, a number, or fields such as device=0 as CSV: "device=0,1",capabilities=utility.
func parseGPUs(s string) (container.DeviceRequest, error) {
	q := container.DeviceRequest{Count: -1, Capabilities: [][]string{{"gpu"}}, Options: map[string]string{}}
	count := func(s string) (err error) {
		if s == "all" {
			return nil
		}
		if q.Count, err = strconv.Atoi(s); err != nil || q.Count < 1 {
			return errors.New("write all, a number, or device=N[,N]")
		}
		return nil
	}
	fields, err := csv.NewReader(strings.NewReader(s)).Read()
	if err != nil {
		return q, err
	}
	counted := false
	for _, field := range fields {
		key, value, ok := strings.Cut(field, "=")
		switch {
		case !ok && !counted:
			counted = true
			err = count(field)
		case key == "count":
			counted = true
			err = count(value)
		case key == "device":
			q.DeviceIDs = strings.Split(value, ",")
		case key == "driver":
			q.Driver = value
		case key == "capabilities":
			q.Capabilities = [][]string{append(strings.Split(value, ","), "gpu")}
		case key == "options":
			for _, pair := range strings.Split(value, ",") {
				name, of, _ := strings.Cut(pair, "=")
				q.Options[name] = of
			}
		default:
			err = fmt.Errorf("unknown option %q%s", key, didYouMean(key, []string{"count", "device", "driver", "capabilities", "options"}, ""))
		}
		if err != nil {
			return q, err
		}
	}
	if len(q.DeviceIDs) > 0 {
		if counted {
			return q, errors.New("say count or device, not both")
		}
		q.Count = 0
	}
	return q, nil
}

// isDeviceName recognises vendor.com/class=name.
func isDeviceName(s string) bool {
	kind, name, ok := strings.Cut(s, "=")
	vendor, class, slash := strings.Cut(kind, "/")
	return ok && slash && name != "" && vendor != "" && class != "" && !strings.Contains(class, "/")
}

// parseDevice reads /on/host[:/in/container][:rwm].
func parseDevice(s string) (container.DeviceMapping, error) {
	m := container.DeviceMapping{CgroupPermissions: "rwm"}
	parts := strings.Split(s, ":")
	switch len(parts) {
	case 3:
		m.CgroupPermissions = parts[2]
		fallthrough
	case 2:
		if len(parts) == 2 && isDeviceMode(parts[1]) {
			m.CgroupPermissions = parts[1]
		} else {
			m.PathInContainer = parts[1]
		}
	case 1:
	default:
		return m, errors.New("too many colons: write /dev/NODE[:/dev/NODE][:rwm]")
	}
	m.PathOnHost = parts[0]
	if m.PathInContainer == "" {
		m.PathInContainer = m.PathOnHost
	}
	switch {
	case !path.IsAbs(m.PathOnHost) || !path.IsAbs(m.PathInContainer):
		return m, errors.New("give absolute paths, such as /dev/fuse")
	case !isDeviceMode(m.CgroupPermissions):
		return m, fmt.Errorf("permissions are letters of rwm, not %q", m.CgroupPermissions)
	}
	return m, nil
}

func isDeviceMode(s string) bool {
	return s != "" && strings.Trim(s, "rwm") == "" && strings.Count(s, "r") <= 1 && strings.Count(s, "w") <= 1 && strings.Count(s, "m") <= 1
}

// checkDeviceRule takes a rule of the devices control group: TYPE MAJOR:MINOR ACCESS.
func checkDeviceRule(s string) (string, error) {
	fields := strings.Fields(s)
	bad := errors.New("write TYPE MAJOR:MINOR ACCESS, such as 'c 10:200 rwm'")
	if len(fields) != 3 || len(fields[0]) != 1 || !strings.Contains("abc", fields[0]) || !isDeviceMode(fields[2]) {
		return "", bad
	}
	major, minor, ok := strings.Cut(fields[1], ":")
	for _, n := range []string{major, minor} {
		if _, err := strconv.ParseUint(n, 10, 32); err != nil && n != "*" || !ok {
			return "", bad
		}
	}
	return s, nil
}

// weightFlag collects --blkio-weight-device PATH:WEIGHT.
type weightFlag struct{ list []*blkiodev.WeightDevice }

func (f *weightFlag) String() string { return "" }
func (f *weightFlag) Type() string   { return "list" }

func (f *weightFlag) Set(s string) error {
	dev, text, ok := strings.Cut(s, ":")
	if !ok || !strings.HasPrefix(dev, "/dev/") {
		return errors.New("write /dev/NODE:WEIGHT, such as /dev/sda:200")
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || n > 0 && (n < 10 || n > 1000) {
		return errors.New("a weight is a number from 10 to 1000, or 0 for none")
	}
	f.list = append(f.list, &blkiodev.WeightDevice{Path: dev, Weight: uint16(n)})
	return nil
}

// throttleFlag collects PATH:RATE; rates are bytes with units, or plain numbers where operations are counted.
type throttleFlag struct {
	list  []*blkiodev.ThrottleDevice
	bytes bool
}

func (f *throttleFlag) String() string { return "" }
func (f *throttleFlag) Type() string   { return "list" }

func (f *throttleFlag) Set(s string) error {
	dev, text, ok := strings.Cut(s, ":")
	if !ok || !strings.HasPrefix(dev, "/dev/") {
		return errors.New("write /dev/NODE:RATE, such as /dev/sda:10mb")
	}
	var n int64
	var err error
	if f.bytes {
		n, err = units.RAMInBytes(text)
	} else {
		n, err = strconv.ParseInt(text, 10, 64)
	}
	if err != nil || n < 0 {
		if f.bytes {
			return errors.New("a rate is a size for each second, such as 10mb")
		}
		return errors.New("a rate is a number of operations for each second")
	}
	f.list = append(f.list, &blkiodev.ThrottleDevice{Path: dev, Rate: uint64(n)})
	return nil
}
