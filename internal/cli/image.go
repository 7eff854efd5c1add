package cli

func imageCommands() []command {
	return nil
}
