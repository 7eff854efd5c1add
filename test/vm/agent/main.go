// Command agent runs in the virtual machine of the tests: it takes commands from the host over a virtio port and answers with their
// output. A line is a JSON object each way; commands run side by side.
package main

import (
	"fmt"
	"os"
	"time"
)

func main() {
	port, err := openPort("agent")
	if err != nil {
		fmt.Fprintln(os.Stderr, "agent:", err)
		time.Sleep(time.Second) // init starts it again
		os.Exit(1)
	}
	serve(port)
}
