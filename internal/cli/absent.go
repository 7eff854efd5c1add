package cli

// ways name what does here what commands of Docker, its plugins and Podman do elsewhere: by a command's first word, or its first two.
func ways() map[string]string {
	const (
		noSwarm = "this engine runs one machine and has no swarm mode"
		noPods  = "there are no pods: --network, --ipc and --pid container:NAME share namespaces"
		atShell = "wherry exec -it CONTAINER sh starts a shell in a container that runs"
		atBoot  = "the engine starts containers at boot by itself: run them with --restart unless-stopped (update --restart for those that are there), and enable wherry.service"
	)
	return map[string]string{
		"swarm": noSwarm, "node": noSwarm, "service": noSwarm, "stack": noSwarm + "; docker compose runs such files",
		"plugin":  "this engine takes no plugins",
		"trust":   "Docker's content trust is not used; which signatures images need stands in a policy file, see wherry policy --help",
		"compose": "docker compose works with this engine: set DOCKER_HOST=unix:///run/wherry/wherry.sock for it",
		"buildx":  "of buildx there are build, du and prune; docker buildx works with this engine: set DOCKER_HOST=unix:///run/wherry/wherry.sock for it",
		"scout":   "there is no scanner in the engine: wherry save IMAGE gives scanners an archive to read",
		"sbom":    "wherry build --sbom true makes one, and wherry image referrers lists what a registry has of them",
		"list":    "wherry ps lists containers (-a: those that have ended, too), wherry images lists images",
		"ls":      "wherry ps lists containers (-a: those that have ended, too), wherry images lists images",
		"delete":  "wherry rm removes containers, wherry rmi images",
		"remove":  "wherry rm removes containers, wherry rmi images",
		"destroy": "wherry rm -f removes containers, also while they run",
		"copy":    "wherry cp copies files, wherry image copy copies images between registries",
		"log":     "wherry logs CONTAINER; wherry audit log prints who did what through the engine",
		"tail":    "wherry logs -f CONTAINER",
		"shell":   atShell, "sh": atShell, "bash": atShell, "ssh": atShell, "enter": atShell,
		"status": "wherry ps -a lists containers, wherry info tells of the engine",
		"up":     "docker compose up works with this engine: set DOCKER_HOST=unix:///run/wherry/wherry.sock for it",
		"down":   "docker compose down works with this engine: set DOCKER_HOST=unix:///run/wherry/wherry.sock for it",
		"df":     "wherry system df",
		"du":     "wherry system df; wherry builder du for what builds leave",
		"prune":  "wherry system prune removes all that nothing uses; container, image, network, volume and builder prune a part of it",
		"clean":  "wherry system prune removes all that nothing uses", "cleanup": "wherry system prune removes all that nothing uses",
		"daemon":  "wherryd is the engine; wherry starts it where nothing listens",
		"init":    "write a Dockerfile, see wherry build --help",
		"machine": "the engine runs on Linux itself: no machine is made for it; -H ssh://user@host speaks to another one's",
		"pod":     noPods, "play": noPods, "kube": noPods,
		"generate": atBoot, "quadlet": atBoot,
		"auto-update":          "wherry image drift says which images have moved, and wherry replace puts a new one in a container's place",
		"unshare":              "containers have a range of user ids of their own already: there is no namespace to enter",
		"mount":                "files of containers are not shown on the host: wherry cp copies them, and wherry export writes all",
		"unmount":              "files of containers are not shown on the host: there is nothing to unmount",
		"umount":               "files of containers are not shown on the host: there is nothing to unmount",
		"untag":                "wherry rmi NAME takes one name of an image away",
		"container clone":      "wherry replace puts one with another image in its place; for a second one give wherry run the same flags again",
		"container init":       "wherry create makes it, wherry start starts it",
		"container cleanup":    "the engine tidies up after each container by itself",
		"container checkpoint": "wherry checkpoint create CONTAINER NAME",
		"container restore":    "wherry start --checkpoint NAME CONTAINER",
		"container mount":      "files of containers are not shown on the host: wherry cp copies them, and wherry export writes all",
		"container unmount":    "files of containers are not shown on the host: there is nothing to unmount",
		"container runlabel":   "labels are not run: wherry inspect shows them",
		"image mount":          "wherry run --mount type=image,source=IMAGE,target=/PATH shows an image's files in a container",
		"image unmount":        "images are not mounted on the host: there is nothing to unmount",
		"image untag":          "wherry rmi NAME takes one name of an image away",
		"image scp":            "wherry save IMAGE | wherry -H ssh://user@host load",
		"image sign":           "cosign signs images; which signatures they need stands in a policy file, see wherry policy --help",
		"image trust":          "which signatures images need stands in a policy file, see wherry policy --help",
		"image search":         "wherry search",
		"image diff":           "wherry image drift says which files differ between what a tag was and what it is",
		"network reload":       "the engine mends its firewall rules by itself",
		"network update":       "the addresses and name servers of a network stand: make another one, and wherry network connect",
		"volume mount":         "wherry volume inspect tells where its files are",
		"volume unmount":       "there is nothing to unmount",
		"volume export":        "wherry run --rm -v VOLUME:/v IMAGE tar -C /v -c . > FILE",
		"volume import":        "wherry run --rm -i -v VOLUME:/v IMAGE tar -C /v -x < FILE",
		"volume reload":        "there are no volume plugins to ask",
		"system connection":    "wherry context create NAME --docker host=ssh://user@host",
		"system service":       "wherryd is the engine; wherry starts it where nothing listens",
		"system reset":         "wherry system prune --all --volumes removes what is not used",
		"system migrate":       "a new engine takes over what is there by itself",
		"system renumber":      "there are no numbers of locks",
		"system check":         "wherry store check",
	}
}

// otherWays name what does here what a flag of Podman does there.
func otherWays() map[string]string {
	return map[string]string{
		"--pod": "there are no pods: --network container:NAME shares a network", "--pod-id-file": "there are no pods: --network container:NAME shares a network",
		"--rmi":          "remove the image afterwards: wherry rmi IMAGE",
		"--env-host":     "-e '*' passes all variables on, -e 'NAME*' those that begin so",
		"--rootfs":       "make an image of the folder: tar -C DIR -c . | wherry import - NAME",
		"--tz":           "-e TZ=Europe/Berlin, where the image has the zones",
		"--preserve-fds": "pass files on with -v, or a socket's folder",
		"--uidmap":       "each container has a range of user ids of its own; --userns host takes none", "--gidmap": "each container has a range of group ids of its own; --userns host takes none",
		"--http-proxy": "\"proxies\" in config.json gives them to containers",
		"--tls-verify": "which registries go without TLS stands in the engine's settings", "--authfile": "logins stand in config.json, see wherry --config",
		"--names": "one container's output at a time; docker compose logs prints several", "--color": "one container's output at a time; docker compose logs prints several",
		"--sort-by": "--sort", "--ignore": "rm -f is content where there is none",
	}
}
