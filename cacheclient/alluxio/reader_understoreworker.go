package alluxio

import (
	"context"
	"fmt"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/alluxio/rpc"
)

// underStoreWorker has a worker read a span from its under store. Nothing of it is shown before the masters, asked to
// compare, say that the source still has the version: the worker reads whatever is at the path.
type underStoreWorker struct{}

func (underStoreWorker) name() string { return "under store worker" }

func (underStoreWorker) read(ctx context.Context, a *attempt) (cacheclient.Data, error) {
	f, c := a.f, a.f.c
	ask, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	now, err := c.cluster.Status(ask, c.store.absolute(f.info.Path), rpc.AlwaysSync)
	switch {
	case isGone(err):
		f.outdated()
		return cacheclient.Data{}, fmt.Errorf("read %q: %w", f.info.Path, cacheclient.ErrStale)
	case err != nil:
		return cacheclient.Data{}, err
	case now.GetFileId() != f.l.fileID:
		f.outdated()
		return cacheclient.Data{}, fmt.Errorf("read %q: %w", f.info.Path, cacheclient.ErrStale)
	}
	under := f.l.underStore(a.k, now)
	workers, err := c.rank(ask, a.id, f.l.length(a.k))
	if err != nil {
		return cacheclient.Data{}, err
	}
	if len(workers) == 0 {
		return cacheclient.Data{}, &rpc.Unreachable{
			Addr: c.cfg.Address.String(),
			Why:  "has no worker that could read the block",
		}
	}
	f.forget(a.k)
	d, err := f.remote(ctx, a.span, workers, f.check, under)
	if err == nil {
		c.count.bytesSource.Add(a.n)
		d.Origin = cacheclient.OriginSource
	}
	return d, err
}
