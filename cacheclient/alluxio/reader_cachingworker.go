package alluxio

import (
	"context"

	"millrace.io/millrace/cacheclient"
)

// cachingWorker reads from a worker that has the block.
type cachingWorker struct{}

func (cachingWorker) name() string { return "caching worker" }

func (cachingWorker) read(ctx context.Context, a *attempt) (cacheclient.Data, error) {
	if len(a.well) == 0 {
		return cacheclient.Data{}, errNext
	}
	d, err := a.f.remote(ctx, a.span, a.well, nil, nil)
	if err != nil && ctx.Err() == nil {
		// The next read looks for the block anew.
		a.f.forget(a.k)
	}
	return d, err
}
