package alluxio

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"millrace.io/millrace/cacheclient"
)

// newFill begins to fill a cold block from the source, if a worker of this machine has room for it and not too much is
// under way, and reads the span from that. It is the first of those that read the source, so it asks for the version.
type newFill struct{}

func (newFill) name() string { return "new fill" }

func (newFill) read(ctx context.Context, a *attempt) (cacheclient.Data, error) {
	f := a.f
	f.c.count.misses.Add(1)
	info, err := f.source(ctx)
	if err != nil {
		if errors.Is(err, cacheclient.ErrStale) {
			err = fmt.Errorf("read %q: %w", f.info.Path, err)
		}
		return cacheclient.Data{}, err
	}
	a.version = &info
	// A fill that another reader has begun since runningFill looked is joined.
	fl, err := f.c.fillOf(ctx, f, a.k, info)
	if err != nil {
		return cacheclient.Data{}, errNext
	}
	d, err := fl.read(ctx, a.span)
	switch {
	case err == nil:
		return d, nil
	case ctx.Err() != nil:
		return cacheclient.Data{}, f.sourceChanged(err)
	case errors.Is(err, cacheclient.ErrStale):
		_ = f.sourceChanged(err)
		a.doubted = true
	case errors.Is(err, errOver) || errors.Is(err, fs.ErrExist):
		// All of it has come meanwhile, or another process was faster: the block is in the tier by now.
		if b := f.c.localBlock(ctx, a.id, f.l.length(a.k)); b != nil {
			return f.lend(b, a.span), nil
		}
	}
	return cacheclient.Data{}, errNext
}
