package metrics

import (
	"fmt"
	"strings"

	"github.com/moby/moby/api/types/container"

	"wherry.dev/wherry/internal/monitor"
)

type emit func(v float64, more ...string)

// family is what is told of each container under one name.
type family struct {
	name string
	kind kind
	help string
	each func(r *row, out emit)
}

// families are all of them, in the order in which they are written.
func families() []family {
	all := []family{
		{"wherry_container_state", gauge, "1 for the state that the container is in.", func(r *row, out emit) { out(1, "state", r.state) }},
		{"wherry_container_health", gauge, "1 for the health that its checks have found.", func(r *row, out emit) {
			if r.health != "" {
				out(1, "health", r.health)
			}
		}},
		{"wherry_container_restarts_total", counter, "Restarts by its policy.", func(r *row, out emit) { out(float64(r.restarts)) }},
		{"wherry_container_start_time_seconds", gauge, "When it was last started, in seconds since 1970.", func(r *row, out emit) {
			if !r.started.IsZero() {
				out(seconds(r.started))
			}
		}},
	}
	running := func(name string, k kind, help string, each func(s *monitor.Sample, out emit)) {
		all = append(all, family{name, k, help, func(r *row, out emit) {
			if r.sample != nil {
				each(r.sample, out)
			}
		}})
	}
	running("wherry_container_cpu_seconds_total", counter, "Processor time.", func(s *monitor.Sample, out emit) {
		out(float64(s.CPUStats.CPUUsage.TotalUsage) / 1e9)
	})
	running("wherry_container_cpu_user_seconds_total", counter, "Processor time outside of the kernel.", func(s *monitor.Sample, out emit) {
		out(float64(s.CPUStats.CPUUsage.UsageInUsermode) / 1e9)
	})
	running("wherry_container_cpu_system_seconds_total", counter, "Processor time in the kernel.", func(s *monitor.Sample, out emit) {
		out(float64(s.CPUStats.CPUUsage.UsageInKernelmode) / 1e9)
	})
	running("wherry_container_cpu_throttled_seconds_total", counter, "Time for which its limit held it back.", func(s *monitor.Sample, out emit) {
		out(float64(s.CPUStats.ThrottlingData.ThrottledTime) / 1e9)
	})
	running("wherry_container_cpu_throttled_periods_total", counter, "Periods in which its limit held it back.", func(s *monitor.Sample, out emit) {
		out(float64(s.CPUStats.ThrottlingData.ThrottledPeriods))
	})
	memory(running)
	running("wherry_container_processes", gauge, "Processes and threads.", func(s *monitor.Sample, out emit) { out(float64(s.PidsStats.Current)) })
	running("wherry_container_processes_limit", gauge, "How many there may be; missing without a limit.", func(s *monitor.Sample, out emit) {
		if s.PidsStats.Limit > 0 {
			out(float64(s.PidsStats.Limit))
		}
	})
	block(running)
	network(running)
	return all
}

type adder func(name string, k kind, help string, each func(s *monitor.Sample, out emit))

func memory(running adder) {
	for _, m := range []struct {
		name, help string
		value      func(s *monitor.Sample) uint64
	}{
		{"usage", "Memory in use, with cached files.", func(s *monitor.Sample) uint64 { return s.MemoryStats.Usage }},
		{"limit", "Its limit, or the machine's memory.", func(s *monitor.Sample) uint64 { return s.MemoryStats.Limit }},
		{"anonymous", "Memory of processes: heaps and stacks.", func(s *monitor.Sample) uint64 { return s.Split.Anonymous }},
		{"file", "Cached files, which the kernel gives back when memory is short.", func(s *monitor.Sample) uint64 { return s.Split.File }},
		{"shmem", "Shared memory and files of tmpfs.", func(s *monitor.Sample) uint64 { return s.Split.Shmem }},
		{"swap", "Memory that was swapped out.", func(s *monitor.Sample) uint64 { return s.Swap }},
	} {
		running("wherry_container_memory_"+m.name+"_bytes", gauge, m.help, func(s *monitor.Sample, out emit) { out(float64(m.value(s))) })
	}
	running("wherry_container_oom_kills_total", counter, "Processes that were killed because memory was short, since it started.", func(s *monitor.Sample, out emit) { out(float64(s.OOMKills)) })
}

func block(running adder) {
	for _, m := range []struct {
		name, op string
		list     func(s *monitor.Sample) []container.BlkioStatEntry
	}{
		{"bytes", "Read", func(s *monitor.Sample) []container.BlkioStatEntry { return s.BlkioStats.IoServiceBytesRecursive }},
		{"bytes", "Write", func(s *monitor.Sample) []container.BlkioStatEntry { return s.BlkioStats.IoServiceBytesRecursive }},
		{"operations", "Read", func(s *monitor.Sample) []container.BlkioStatEntry { return s.Operations }},
		{"operations", "Write", func(s *monitor.Sample) []container.BlkioStatEntry { return s.Operations }},
	} {
		name := "wherry_container_block_" + strings.ToLower(m.op) + "_" + m.name + "_total"
		running(name, counter, m.op+" "+m.name+" of block devices.", func(s *monitor.Sample, out emit) {
			for _, e := range m.list(s) {
				if strings.EqualFold(e.Op, m.op) {
					out(float64(e.Value), "device", fmt.Sprintf("%d:%d", e.Major, e.Minor))
				}
			}
		})
	}
}

func network(running adder) {
	for _, m := range []struct {
		name, help string
		value      func(n container.NetworkStats) uint64
	}{
		{"receive_bytes", "Bytes that came in.", func(n container.NetworkStats) uint64 { return n.RxBytes }},
		{"receive_packets", "Packets that came in.", func(n container.NetworkStats) uint64 { return n.RxPackets }},
		{"receive_errors", "Errors of receiving.", func(n container.NetworkStats) uint64 { return n.RxErrors }},
		{"receive_dropped", "Packets that were dropped on their way in.", func(n container.NetworkStats) uint64 { return n.RxDropped }},
		{"transmit_bytes", "Bytes that went out.", func(n container.NetworkStats) uint64 { return n.TxBytes }},
		{"transmit_packets", "Packets that went out.", func(n container.NetworkStats) uint64 { return n.TxPackets }},
		{"transmit_errors", "Errors of sending.", func(n container.NetworkStats) uint64 { return n.TxErrors }},
		{"transmit_dropped", "Packets that were dropped on their way out.", func(n container.NetworkStats) uint64 { return n.TxDropped }},
	} {
		running("wherry_container_network_"+m.name+"_total", counter, m.help, func(s *monitor.Sample, out emit) {
			for _, name := range sortedKeys(s.Networks) {
				out(float64(m.value(s.Networks[name])), "interface", name)
			}
		})
	}
}
