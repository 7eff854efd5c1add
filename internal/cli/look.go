package cli

func lookCommands() []command {
	return nil
}
