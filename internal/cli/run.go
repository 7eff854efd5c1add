package cli

func runCommands() []command {
	return nil
}
