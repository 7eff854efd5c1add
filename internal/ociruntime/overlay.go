package ociruntime

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// longestOption is what fsconfig(2) takes as a value.
const longestOption = 255

// layOverlay sets the folders of an overlay whose names are too long for fsconfig(2), by descriptors, and returns the options that are left.
// Until the file system has been made they are to be held.
func layOverlay(fs int, data []string, h *held) (left []string, err error) {
	for _, d := range data {
		key, value, _ := strings.Cut(d, "=")
		switch {
		case len(value) <= longestOption:
			left = append(left, d)
		case key == "lowerdir":
			err = layFolders(fs, key, splitLayers(value), h)
		case key == "upperdir" || key == "workdir":
			err = layFolders(fs, key, []string{value}, h)
		default:
			err = fmt.Errorf("option %q: its value has %d bytes, the kernel takes %d", key, len(value), longestOption)
		}
		if err != nil {
			return nil, err
		}
	}
	return left, nil
}

// layFolders sets folders by descriptors, which kernels from 6.13 take (layers one by one, as "lowerdir+"); to others it names them in /proc/self/fd.
func layFolders(fs int, key string, folders []string, h *held) error {
	byDescriptor := key
	if key == "lowerdir" {
		byDescriptor = "lowerdir+"
	}
	var names []string
	known := true // to the kernel, as an option that takes a descriptor
	for i, path := range folders {
		f, err := os.OpenFile(path, unix.O_PATH|unix.O_DIRECTORY, 0)
		if err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
		h.keep(f)
		if known {
			err = unix.FsconfigSetFd(fs, byDescriptor, descriptor(f))
			known = err == nil
		}
		switch {
		case err != nil && i > 0:
			return fmt.Errorf("%s %s: %w", key, path, err)
		case !known:
			names = append(names, "/proc/self/fd/"+strconv.Itoa(descriptor(f)))
		}
	}
	text := strings.Join(names, ":")
	switch {
	case names == nil:
		return nil
	case len(text) > longestOption:
		return fmt.Errorf("%s: %d folders with long names are too many for this kernel; from Linux 6.13 they are not", key, len(folders))
	}
	return unix.FsconfigSetString(fs, key, text)
}

// splitLayers are the folders of lowerdir, topmost first: colons stand between them, those in names after a backslash.
func splitLayers(list string) []string {
	layers := []string{""}
	for i := 0; i < len(list); i++ {
		switch {
		case list[i] == ':':
			layers = append(layers, "")
			continue
		case list[i] == '\\' && i+1 < len(list):
			i++
		}
		layers[len(layers)-1] += list[i : i+1]
	}
	return layers
}
