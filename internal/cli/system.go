package cli

import (
	"github.com/spf13/cobra"
)

// systemCommands are about the engine as a whole.
func systemCommands() []command {
	line := func(name, group, short string, build func(*App) *cobra.Command, also ...string) command {
		return command{name: name, also: also, group: group, short: short, build: build}
	}
	return []command{
		line("version", groupCommon, "Print the versions of client and engine", versionCommand),
		line("info", groupCommon, "Print what the engine has and can", infoCommand, "system info"),
		line("events", groupOther, "Print what happens, as it happens", eventsCommand, "system events"),
		line("system df", groupOther, "Show what takes disk space", diskUsageCommand),
		line("system prune", groupOther, "Remove everything that is not used", systemPruneCommand),
		line("system clean-up", groupOther, "Remove the images that were not used for longest until the disk has room", cleanUpCommand),
		line("container prune", groupOther, "Remove all stopped containers", containerPruneCommand),
		line("system dial-stdio", groupOther, "Carry a client's connection over input and output, as ssh:// addresses need it", dialStdioCommand),
	}
}
