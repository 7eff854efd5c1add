package cli

import "github.com/spf13/cobra"

// imageCommands are about images and registries.
func imageCommands() []command {
	line := func(name, group, short string, build func(*App) *cobra.Command, also ...string) command {
		return command{name: name, also: also, group: group, short: short, build: build}
	}
	return []command{
		line("pull", groupCommon, "Fetch an image from a registry", pullCommand, "image pull"),
		line("push", groupCommon, "Send an image to a registry", pushCommand, "image push"),
		line("login", groupCommon, "Log in at a registry", loginCommand),
		line("logout", groupCommon, "Forget the login at a registry", logoutCommand),
		line("search", groupOther, "Look for images on a registry, Docker Hub or that of HOST/WORD", searchCommand),
		line("images", groupCommon, "List images", imagesCommand, "image ls", "image list"),
		line("tag", groupOther, "Give an image one more name", tagCommand, "image tag"),
		line("rmi", groupOther, "Remove images", rmiCommand, "image rm", "image remove"),
		line("history", groupOther, "Show the layers of an image", historyCommand, "image history"),
		line("lock", groupOther, "Note what images mean now, to run just these later", lockCommand, "image lock"),
		line("image drift", groupOther, "Say which tags have moved, and what runs old images", driftCommand),
		line("image inspect", groupOther, "Print all about images", imageInspectCommand),
		line("image prune", groupOther, "Remove images that are not used", imagePruneCommand),
		line("image pin", groupOther, "Keep images from clean-up and prune; alone: list those", func(a *App) *cobra.Command { return pinCommand(a, true) }),
		line("image unpin", groupOther, "Let pinned images be cleaned up again", func(a *App) *cobra.Command { return pinCommand(a, false) }),
		line("image tree", groupOther, "Show which layers images and containers share", layerTreeCommand),
		line("image copy", groupOther, "Copy an image from registry to registry, or to and from OCI layouts", imageCopyCommand),
		line("image referrers", groupOther, "List what refers to an image in its registry", imageReferrersCommand),
		line("image attach", groupOther, "Send files that refer to an image to its registry", imageAttachCommand),
		line("load", groupOther, "Read images from an archive", loadCommand, "image load"),
		line("save", groupOther, "Write images to an archive", saveCommand, "image save"),
		line("import", groupOther, "Make an image of a file system in an archive", importCommand, "image import"),
	}
}
