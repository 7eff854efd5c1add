package main

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"
)

// TestEndIsBound: an engine whose end hangs says at what, and ends.
func TestEndIsBound(t *testing.T) {
	var said bytes.Buffer
	ctx, cancel := context.WithCancel(t.Context())
	exited := make(chan struct{})
	over := bound(ctx, time.Millisecond, slog.New(slog.NewTextHandler(&said, nil)), func() { close(exited) })
	cancel()
	<-exited
	over()
	if !strings.Contains(said.String(), "TestEndIsBound") {
		t.Errorf("it says nothing of what is under way: %s", said.String())
	}
	bound(ctx, time.Hour, slog.New(slog.DiscardHandler), func() { t.Error("it has ended, and is ended once more") })()
}
