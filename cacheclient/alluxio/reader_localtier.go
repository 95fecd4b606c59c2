package alluxio

import (
	"context"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/alluxio/rpc"
)

// localTier asks the workers of this machine for the block's file. Where they do not have it, the workers that do are
// left to the readers below.
type localTier struct{}

func (localTier) name() string { return "local tier" }

func (localTier) read(ctx context.Context, a *attempt) (cacheclient.Data, error) {
	where, err := a.f.locate(ctx, a.span)
	if err != nil {
		return cacheclient.Data{}, err
	}
	if where.local != nil {
		return a.f.lend(where.local, a.span), nil
	}
	a.unasked = where.unasked
	a.well, a.broken = a.f.c.sortOut(where.workers, a.id)
	return cacheclient.Data{}, errNext
}

// sortOut tells workers that may be asked for a block from those that are left alone at the moment, which come last.
func (c *Client) sortOut(workers []*rpc.Worker, id int64) (well, broken []*rpc.Worker) {
	for _, w := range workers {
		if w.Broken() || c.bad.was(id) {
			broken = append(broken, w)
		} else {
			well = append(well, w)
		}
	}
	return well, broken
}
