package cli

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// terminal gives the descriptor of a stream that is a terminal.
func terminal(stream any) (fd int, ok bool) {
	f, ok := stream.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return -1, false
	}
	return int(f.Fd()), true
}

// writeFormatted writes what a format made. On a terminal nothing in it moves the cursor: labels, names and descriptions are the words of images, registries
// and containers. A format that has control characters itself is one whose user wants them.
func writeFormatted(w io.Writer, format string, text []byte) error {
	if _, ok := terminal(w); ok && printable(format) == format {
		text = []byte(printable(string(text)))
	}
	_, err := w.Write(text)
	return err
}

// say prints a line with words of the engine's, which may be another machine's.
func say(w io.Writer, words ...any) error {
	_, err := io.WriteString(w, printable(fmt.Sprintln(words...)))
	return err
}

// ask prints a question and reads a line.
func ask(app *App, question string) (string, error) {
	fmt.Fprint(app.Out, question)
	line, err := bufio.NewReader(app.In).ReadString('\n')
	if err != nil && (line == "" || !errors.Is(err, io.EOF)) {
		return "", fmt.Errorf("no answer to %q: %w", strings.TrimSpace(question), err)
	}
	return strings.TrimRight(line, "\r\n"), nil
}

// askSecret is ask with the terminal's echo off.
func askSecret(app *App, question string) (string, error) {
	fd, ok := terminal(app.In)
	if !ok {
		return "", errors.New("a password is needed and the input is no terminal: give it with --password-stdin")
	}
	fmt.Fprint(app.Out, question)
	defer restoreAfterSignals(fd)()
	secret, err := term.ReadPassword(fd)
	fmt.Fprintln(app.Out)
	if err != nil {
		return "", fmt.Errorf("read the password: %w", err)
	}
	return string(secret), nil
}

// restoreAfterSignals gives the terminal back as it is now when a signal ends the process before stop is called.
func restoreAfterSignals(fd int) (stop func()) {
	state, err := term.GetState(fd)
	if err != nil {
		return func() {}
	}
	signals, over := make(chan os.Signal, 1), make(chan struct{})
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT)
	go func() { // ends with stop or with the process
		select {
		case s := <-signals:
			_ = term.Restore(fd, state)
			signal.Reset(s)
			_ = unix.Kill(os.Getpid(), s.(unix.Signal))
		case <-over:
		}
	}()
	return func() {
		signal.Stop(signals)
		close(over)
	}
}

// confirm asks before something is destroyed; anything but y means no.
func confirm(app *App, question string) error {
	answer, err := ask(app, question+" [y/N] ")
	if err != nil {
		return fmt.Errorf("nothing was done: nobody is there to confirm it (%w): give --force to do it without a question", errors.Unwrap(err))
	}
	if answer = strings.ToLower(strings.TrimSpace(answer)); answer != "y" && answer != "yes" {
		return errors.New("nothing was done")
	}
	return nil
}
