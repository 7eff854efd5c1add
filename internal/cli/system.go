package cli

func systemCommands() []command {
	return nil
}
