package cli

import (
	"io"

	"github.com/spf13/cobra"
)

// dialStdioCommand is what an ssh:// address runs on the engine's machine. It ends when the engine has said all; the end of input is told
// to the engine, which may go on.
func dialStdioCommand(app *App) *cobra.Command {
	return &cobra.Command{Use: "dial-stdio", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		cl, err := app.Client()
		if err != nil {
			return err
		}
		conn, err := cl.Dial(cmd.Context())
		if err != nil {
			return err
		}
		defer conn.Close()
		go func() { // ends with the process
			_, _ = io.Copy(conn, app.In)
			if c, ok := conn.(interface{ CloseWrite() error }); ok {
				_ = c.CloseWrite()
			}
		}()
		_, err = io.Copy(app.Out, conn)
		return err
	}}
}
