package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/moby/moby/api/types/system"
	"github.com/spf13/cobra"
)

// infoView is the engine's answer with what the client adds, for templates.
type infoView struct {
	system.Info
	ClientInfo infoClient
}

type infoClient struct {
	Debug bool
	clientVersion
}

func infoCommand(app *App) *cobra.Command {
	var format string
	c := &cobra.Command{Use: "info [OPTIONS]", RunE: func(cmd *cobra.Command, _ []string) error {
		v := infoView{ClientInfo: infoClient{Debug: app.Debug, clientVersion: thisClient()}}
		plain := func(w io.Writer) error { return printInfo(w, v) }
		cl, err := app.Client()
		if err != nil {
			return err
		}
		if err := cl.Get(cmd.Context(), "/info", nil, &v.Info); err != nil {
			return err
		}
		if err := printObject(app.Out, format, v, plain); err != nil || format != "" {
			return err
		}
		for _, warning := range v.Warnings {
			_ = say(app.Err, warning)
		}
		return nil
	}}
	formatFlag(c, &format, "f")
	return c
}

// infoWriter writes "name: value" lines with Docker's names, which scripts look for.
type infoWriter struct{ strings.Builder }

// has writes a line if there is a value.
func (b *infoWriter) has(name, value string) {
	if value != "" {
		fmt.Fprintf(b, "%s: %s\n", name, value)
	}
}

func (b *infoWriter) line(name string, value any) { fmt.Fprintf(b, "%s: %v\n", name, value) }

func printInfo(w io.Writer, v infoView) error {
	var b infoWriter
	b.WriteString("Client:\n")
	b.line(" Version:   ", v.ClientInfo.Version)
	b.line(" Context:   ", v.ClientInfo.Context)
	b.line(" Debug Mode", v.ClientInfo.Debug)
	text := strings.ReplaceAll(b.String(), ":   : ", ":    ")
	b.Reset()
	b.WriteString(text + "\nServer:\n")
	b.contents(v.Info)
	b.abilities(v.Info)
	b.machine(v.Info)
	b.settings(v.Info)
	_, err := io.WriteString(w, printable(b.String()+"\n"))
	return err
}

func (b *infoWriter) contents(i system.Info) {
	b.line(" Containers", i.Containers)
	b.line("  Running", i.ContainersRunning)
	b.line("  Paused", i.ContainersPaused)
	b.line("  Stopped", i.ContainersStopped)
	b.line(" Images", i.Images)
	b.has(" Server Version", i.ServerVersion)
	b.has(" Storage Driver", i.Driver)
	for _, pair := range i.DriverStatus {
		b.line("  "+pair[0], pair[1])
	}
}

func (b *infoWriter) abilities(i system.Info) {
	b.has(" Logging Driver", i.LoggingDriver)
	b.has(" Cgroup Driver", i.CgroupDriver)
	b.has(" Cgroup Version", i.CgroupVersion)
	b.WriteString(" Plugins:\n")
	b.line("  Volume", strings.Join(i.Plugins.Volume, " "))
	b.line("  Network", strings.Join(i.Plugins.Network, " "))
	b.has("  Authorization", strings.Join(i.Plugins.Authorization, " "))
	b.line("  Log", strings.Join(i.Plugins.Log, " "))
	if len(i.CDISpecDirs) > 0 {
		b.WriteString(" CDI spec directories:\n  " + strings.Join(i.CDISpecDirs, "\n  ") + "\n")
	}
	if len(i.DiscoveredDevices) > 0 {
		b.WriteString(" Discovered Devices:\n")
	}
	for _, d := range i.DiscoveredDevices {
		b.line("  "+d.Source, d.ID)
	}
	b.line(" Swarm", i.Swarm.LocalNodeState)
	if len(i.Runtimes) > 0 {
		b.line(" Runtimes", strings.Join(sorted(i.Runtimes), " "))
		b.line(" Default Runtime", i.DefaultRuntime)
	}
	b.has(" Init Binary", i.InitBinary)
	b.has(" containerd version", i.ContainerdCommit.ID)
	b.has(" runc version", i.RuncCommit.ID)
	b.has(" init version", i.InitCommit.ID)
	if len(i.SecurityOptions) == 0 {
		return
	}
	b.WriteString(" Security Options:\n")
	for _, option := range i.SecurityOptions {
		for _, part := range strings.Split(option, ",") {
			switch key, value, _ := strings.Cut(part, "="); key {
			case "name":
				b.WriteString("  " + value + "\n")
			case "profile":
				b.line("   Profile", value)
			}
		}
	}
}

func (b *infoWriter) machine(i system.Info) {
	b.has(" Kernel Version", i.KernelVersion)
	b.has(" Operating System", i.OperatingSystem)
	b.has(" OSType", i.OSType)
	b.has(" Architecture", i.Architecture)
	b.line(" CPUs", i.NCPU)
	b.line(" Total Memory", humanMemory(uint64(max(i.MemTotal, 0))))
	b.has(" Name", i.Name)
	b.has(" ID", i.ID)
}

func (b *infoWriter) settings(i system.Info) {
	b.line(" Docker Root Dir", i.DockerRootDir)
	b.line(" Debug Mode", i.Debug)
	if i.Debug {
		b.line("  File Descriptors", i.NFd)
		b.line("  Goroutines", i.NGoroutines)
		b.line("  System Time", i.SystemTime)
		b.line("  EventsListeners", i.NEventsListener)
	}
	b.has(" HTTP Proxy", i.HTTPProxy)
	b.has(" HTTPS Proxy", i.HTTPSProxy)
	b.has(" No Proxy", i.NoProxy)
	if len(i.Labels) > 0 {
		b.WriteString(" Labels:\n  " + strings.Join(i.Labels, "\n  ") + "\n")
	}
	b.line(" Experimental", i.ExperimentalBuild)
	if r := i.RegistryConfig; r != nil {
		b.WriteString(" Insecure Registries:\n")
		for _, name := range sorted(r.IndexConfigs) {
			if !r.IndexConfigs[name].Secure {
				b.WriteString("  " + r.IndexConfigs[name].Name + "\n")
			}
		}
		for _, p := range r.InsecureRegistryCIDRs {
			fmt.Fprintf(b, "  %s\n", p)
		}
		if len(r.Mirrors) > 0 {
			b.WriteString(" Registry Mirrors:\n  " + strings.Join(r.Mirrors, "\n  ") + "\n")
		}
	}
	b.line(" Live Restore Enabled", i.LiveRestoreEnabled)
	if i.FirewallBackend != nil {
		b.line(" Firewall Backend", i.FirewallBackend.Driver)
	}
}
