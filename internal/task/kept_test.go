package task

import (
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestKeptSockets: what is given to a shim, at the start or later, outlives who gave it, is read by who comes next, and goes with the container.
func TestKeptSockets(t *testing.T) {
	o := options(t, oar(t), "keeps", "sleep", "600")
	tk := create(t, o)
	defer tk.Delete(t.Context())
	sockets := func() (files []*os.File, to net.Addr) {
		c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		f, err := c.File()
		if err != nil {
			t.Fatal(err)
		}
		return []*os.File{f}, c.LocalAddr()
	}
	first, to := sockets()
	if err := tk.Start(t.Context(), first...); err != nil {
		t.Fatal(err)
	}
	first[0].Close()
	tk.Close()
	waits(t, o.Dir, to)
	waits(t, o.Dir, to) // they are still kept
	stamped(t, o.Dir, 1)

	back, err := Open(t.Context(), o.Dir)
	if err != nil {
		t.Fatal(err)
	}
	defer back.Delete(t.Context())
	stamped(t, o.Dir, 0)
	second, other := sockets()
	if err := Keep(t.Context(), back, second); err != nil {
		t.Fatal(err)
	}
	second[0].Close()
	waits(t, o.Dir, other)
	if c, err := net.ListenPacket("udp4", to.String()); err != nil {
		t.Errorf("what was kept before: %v", err)
	} else {
		c.Close()
	}

	if err := back.Kill(t.Context(), 9, true); err != nil {
		t.Fatal(err)
	}
	if _, err := back.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	if files, err := Kept(t.Context(), o.Dir); err != nil || len(files) != 0 { // the shim is there as long as somebody is connected
		t.Errorf("after the container's end: %d sockets, %v", len(files), err)
	}
	if files, err := Kept(t.Context(), t.TempDir()+"/none"); err != nil || files != nil {
		t.Errorf("of no task: %d sockets, %v", len(files), err)
	}
}

// waits sends a packet to a socket that nobody reads and has it read from the copy that the shim gives.
func waits(t *testing.T, dir string, to net.Addr) {
	t.Helper()
	client, err := net.Dial("udp4", to.String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if _, err := client.Write([]byte("anybody there?")); err != nil {
		t.Fatal(err)
	}
	files, err := Kept(t.Context(), dir)
	if err != nil || len(files) != 1 {
		t.Fatalf("%d sockets, %v", len(files), err)
	}
	defer files[0].Close()
	c, err := net.FilePacketConn(files[0])
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	buf := make([]byte, 64)
	if n, _, err := c.ReadFrom(buf); err != nil || string(buf[:n]) != "anybody there?" {
		t.Errorf("%q, %v", buf[:n], err)
	}
}

// stamped waits until the kernel notes when packets come, or does not.
func stamped(t *testing.T, dir string, want int) {
	t.Helper()
	files, err := Kept(t.Context(), dir) // the shim sees the end of that, too
	if err != nil || len(files) != 1 {
		t.Fatalf("%d sockets, %v", len(files), err)
	}
	defer files[0].Close()
	got := -1
	for deadline := time.Now().Add(10 * time.Second); got != want && time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if got, err = unix.GetsockoptInt(int(files[0].Fd()), unix.SOL_SOCKET, unix.SO_TIMESTAMPNS); err != nil {
			t.Fatal(err)
		}
	}
	if got != want {
		t.Errorf("the time of packets is noted: %d, not %d", got, want)
	}
}
