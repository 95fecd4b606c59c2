package alluxio

import (
	"context"

	"millrace.io/millrace/cacheclient"
)

// brokenWorker reads from a worker that has the block and was left alone so far, because it failed a moment ago.
type brokenWorker struct{}

func (brokenWorker) name() string { return "broken worker" }

func (brokenWorker) read(ctx context.Context, a *attempt) (cacheclient.Data, error) {
	if len(a.broken) == 0 {
		return cacheclient.Data{}, errNext
	}
	return a.f.remote(ctx, a.span, a.broken, nil, nil)
}
