package cli

import "context"

func (d *drift) files(ctx context.Context) error { return nil }
