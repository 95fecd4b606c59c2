package alluxio

import (
	"context"
	"errors"

	"millrace.io/millrace/cacheclient"
)

// runningFill reads from a block that this process is bringing from the source into a tier of this machine.
type runningFill struct{}

func (runningFill) name() string { return "running fill" }

func (runningFill) read(ctx context.Context, a *attempt) (cacheclient.Data, error) {
	fl := a.f.c.filling(a.id)
	if fl == nil {
		return cacheclient.Data{}, errNext
	}
	d, err := fl.read(ctx, a.span)
	// A fill that met another version says nothing for good: newFill asks the source again. What else ended it does not
	// keep the block from being had otherwise.
	if err != nil && (ctx.Err() == nil || errors.Is(err, cacheclient.ErrStale)) {
		return cacheclient.Data{}, errNext
	}
	return d, err
}
