package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"wherry.dev/wherry/internal/client"
)

func saveCommand(app *App) *cobra.Command {
	var output, format string
	var platforms []string
	c := &cobra.Command{Use: "save [OPTIONS] IMAGE...", Args: atLeast(1), RunE: func(cmd *cobra.Command, args []string) error {
		q := url.Values{"names": args}
		switch format {
		case "", "docker-archive", "oci-archive":
			q.Set("format", format)
		case "oci-dir":
			q.Set("format", "oci-archive")
			if output == "" {
				return errors.New("save --format oci-dir writes a directory: give --output DIRECTORY")
			}
		default:
			formats := []string{"docker-archive", "oci-archive", "oci-dir"}
			return fmt.Errorf("save --format %s: it can be docker-archive, oci-archive or oci-dir%s", format, didYouMean(format, formats, ""))
		}
		if _, ok := terminal(app.Out); ok && output == "" {
			return errors.New("save prints an archive, not something for a terminal: give --output FILE, or redirect the output")
		}
		if err := addPlatforms(q, "platform", platforms); err != nil {
			return err
		}
		cl, err := app.Client()
		if err != nil {
			return err
		}
		res, err := cl.Stream(cmd.Context(), client.Request{Path: "/images/get", Query: q})
		if err != nil {
			return err
		}
		defer res.Body.Close()
		if format == "oci-dir" {
			return saveLayout(output, res.Body)
		}
		return saveTo(app, output, res.Body)
	}}
	c.Flags().StringVarP(&output, "output", "o", "", "Write to a file, or with --format oci-dir a directory, instead of the output")
	c.Flags().StringVar(&format, "format", "", "Write an oci-archive, an oci-dir or a docker-archive; without it, an archive that is both")
	c.Flags().StringSliceVar(&platforms, "platform", nil, "Save only one platform, such as linux/arm64; may be given several times")
	return c
}

// saveTo writes a download to the output or to a file, which gets its name when it is whole.
func saveTo(app *App, path string, body io.Reader) error {
	if path == "" {
		_, err := io.Copy(app.Out, body)
		return err
	}
	if st, err := os.Stat(path); err == nil && !st.Mode().IsRegular() {
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		_, err = io.Copy(f, body)
		return errors.Join(err, f.Close())
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-")
	if err != nil {
		var p *fs.PathError
		if errors.As(err, &p) {
			err = p.Err // without the passing name
		}
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("write %s: there is no folder %s", path, filepath.Dir(path))
		}
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer os.Remove(f.Name()) // nothing is there once it has its name
	_, err = io.Copy(f, body)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return os.Rename(f.Name(), path)
}
