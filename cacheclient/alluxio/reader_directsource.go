package alluxio

import (
	"context"
	"errors"

	"millrace.io/millrace/cacheclient"
)

// directSource reads from the source, past all workers. A push takes the block into a worker of another machine on the
// way, where one may take it.
type directSource struct{}

func (directSource) name() string { return "direct source" }

func (directSource) read(ctx context.Context, a *attempt) (cacheclient.Data, error) {
	f := a.f
	if a.version == nil {
		// newFill has told why.
		return cacheclient.Data{}, errNext
	}
	if !a.doubted {
		if p := f.c.pushFor(ctx, f, a.k, *a.version); p != nil {
			p.awaitPush(ctx, a.span)
		}
		d, err := f.readDirect(ctx, a.span, *a.version)
		err = f.sourceChanged(err)
		if !errors.Is(err, cacheclient.ErrStale) || ctx.Err() != nil {
			return d, err
		}
	}
	return f.readAnew(ctx, a.span)
}

// readAnew reads a span once more where the source said in the middle of the read that it has another version, if it
// says that it has this one now. One such answer may be of a server that lags behind, or come in the middle of a
// rollout. When it says so again the masters compare. D-182 says why.
func (f *file) readAnew(ctx context.Context, s span) (cacheclient.Data, error) {
	info, err := f.source(ctx)
	if err != nil {
		return cacheclient.Data{}, err
	}
	var d cacheclient.Data
	if err = f.reopen(ctx, info); err == nil {
		d, err = f.readDirect(ctx, s, info)
	}
	if errors.Is(err, cacheclient.ErrStale) {
		return cacheclient.Data{}, f.compare(ctx, cacheclient.ErrStale)
	}
	return d, err
}
