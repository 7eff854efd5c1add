package cli

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
)

// hintAtOpenPorts says in one line that ports of a container which has just been started are reached from other machines, and how they are not.
// It is for people: there is none where nobody sees stderr.
func hintAtOpenPorts(ctx context.Context, app *App, req container.CreateRequest, id string) {
	if !mayPublish(req) || os.Getenv(noHint) != "" || !hintsWanted(app, "portHint") {
		return
	}
	if _, ok := terminal(app.Err); !ok {
		return
	}
	c, err := app.Client()
	if err != nil {
		return
	}
	about, err := inspectContainer(ctx, c, id)
	if err != nil || about.NetworkSettings == nil {
		return
	}
	text := openPorts(about.NetworkSettings.Ports)
	if text == "" {
		return
	}
	end := "\n"
	if req.Tty && req.AttachStdout { // its terminal is raw by now
		end = "\r\n"
	}
	fmt.Fprintf(app.Err, "note: %s (No such notes: \"portHint\": false in %s)%s", text, filepath.Join(app.Config, "config.json"), end)
}

func mayPublish(req container.CreateRequest) bool {
	return req.HostConfig != nil && (len(req.HostConfig.PortBindings) > 0 || req.HostConfig.PublishAllPorts)
}

// openPorts names the ports of the host that other machines reach; "" where there is none.
func openPorts(ports network.PortMap) string {
	inside := map[uint16]network.Port{}
	addresses := map[netip.Addr]bool{}
	for port, bindings := range ports {
		for _, b := range bindings {
			n, err := strconv.ParseUint(b.HostPort, 10, 16)
			if err != nil || b.HostIP.IsLoopback() {
				continue
			}
			inside[uint16(n)] = port
			addresses[b.HostIP] = true
		}
	}
	if len(inside) == 0 {
		return ""
	}
	var at, hosts []string
	numbers := make([]uint16, 0, len(inside))
	for n := range inside {
		numbers = append(numbers, n)
	}
	slices.Sort(numbers)
	for i, n := range numbers {
		if i == 3 && len(numbers) > 4 {
			at = append(at, fmt.Sprintf("%d more", len(numbers)-i))
			break
		}
		at = append(at, strconv.Itoa(int(n)))
	}
	for a := range addresses {
		hosts = append(hosts, a.String())
	}
	slices.Sort(hosts)
	is, it := "port %s is", "it"
	if len(numbers) > 1 {
		is, it = "ports %s are", "them"
	}
	first := inside[numbers[0]]
	to := strconv.Itoa(int(first.Num()))
	if first.Proto() != network.TCP {
		to += "/" + string(first.Proto())
	}
	return fmt.Sprintf(is+" open to other machines, at %s. To keep %s to this one: -p 127.0.0.1:%d:%s", enumerate(at), reach(hosts), it, numbers[0], to)
}

// reach says addresses as people do.
func reach(hosts []string) string {
	if slices.Contains(hosts, "0.0.0.0") || slices.Contains(hosts, "::") {
		return "each address of this one"
	}
	return enumerate(hosts)
}

func enumerate(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " and " + words[last]
}
