package cli

func volumeCommands() []command {
	return nil
}
