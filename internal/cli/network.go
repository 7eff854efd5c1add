package cli

func networkCommands() []command {
	return nil
}
