package cli

func fileCommands() []command {
	return nil
}
