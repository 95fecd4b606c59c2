package alluxio

import (
	"context"

	"millrace.io/millrace/cacheclient"
)

// runningStream reads from a stream of a worker that goes on.
type runningStream struct{}

func (runningStream) name() string { return "running stream" }

func (runningStream) read(ctx context.Context, a *attempt) (cacheclient.Data, error) {
	d, ok, err := a.f.streamed(ctx, a.span)
	if !ok || err != nil {
		// How one stream ended says nothing of the block, not even that it is stale: the readers below find that out.
		return cacheclient.Data{}, errNext
	}
	return d, nil
}
