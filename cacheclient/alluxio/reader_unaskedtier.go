package alluxio

import (
	"context"

	"millrace.io/millrace/cacheclient"
)

// unaskedTier asks the workers of this machine where localTier did not: masters that said that no worker has the block
// may not have known of it.
type unaskedTier struct{}

func (unaskedTier) name() string { return "unasked tier" }

func (unaskedTier) read(ctx context.Context, a *attempt) (cacheclient.Data, error) {
	if !a.unasked {
		return cacheclient.Data{}, errNext
	}
	b := a.f.c.localBlock(ctx, a.id, a.f.l.length(a.k))
	if b == nil {
		return cacheclient.Data{}, errNext
	}
	return a.f.lend(b, a.span), nil
}
