package alluxio

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/alluxio/rpc"
)

// reader serves a span of one block, or passes it on to the next reader.
type reader interface {
	// read lends the span. errNext passes it on and says nothing. ErrStale ends the read. Every other error is
	// remembered before the next reader is tried.
	read(ctx context.Context, a *attempt) (cacheclient.Data, error)
	// name is what log lines and traces call the reader.
	name() string
}

// readers are tried in this order. It is the order in which a read is served, and nothing else decides it.
// D-271 says why.
var readers = [...]reader{
	openBlock{},        // a block of a tier of this machine, already open
	runningFill{},      // a block that this process is bringing from the source
	runningStream{},    // a stream of a worker that goes on
	localTier{},        // a tier of this machine, asked for the block
	cachingWorker{},    // a worker that has the block
	newFill{},          // the source, through the tier of a worker of this machine
	directSource{},     // the source, past all workers; a push gives the block to a remote one meanwhile
	underStoreWorker{}, // a worker that reads its under store, shown after a comparison
	brokenWorker{},     // a worker that has the block and was left alone so far
	unaskedTier{},      // a tier of this machine that was not asked before
}

// errNext says that a reader does not have the span, and that another may.
var errNext = errors.New("the next reader may have it")

// attempt is the reading of one span: what its readers leave to those after them. It belongs to one goroutine.
type attempt struct {
	f *file
	span
	// id is the block's.
	id int64
	// well are the workers that have the block, and broken those of them that are left alone at the moment.
	well, broken []*rpc.Worker
	// unasked says that the workers of this machine were not asked: the masters had just said that no worker has it.
	unasked bool
	// version is what the source tells of the file; nil before the source was asked, and where it cannot serve.
	version *cacheclient.Info
	// doubted says that the source called the file another version in the middle of the read.
	doubted bool
	// tried are the errors so far.
	tried []error
}

// serve reads a span from the first reader that has it.
func (f *file) serve(ctx context.Context, s span) (cacheclient.Data, error) {
	a := &attempt{f: f, span: s, id: f.l.block(s.k)}
	for _, r := range readers {
		d, err := r.read(ctx, a)
		switch {
		case err == nil:
			d.Reader = r.name()
			a.served(ctx, d.Reader)
			return d, nil
		case errors.Is(err, errNext):
		case errors.Is(err, cacheclient.ErrStale):
			return cacheclient.Data{}, err
		case ctx.Err() != nil:
			return cacheclient.Data{}, fmt.Errorf("read %q: %w", f.info.Path, ctx.Err())
		default:
			a.tried = append(a.tried, err)
		}
	}
	return cacheclient.Data{}, a.failed(ctx)
}

// served logs which reader served the span.
func (a *attempt) served(ctx context.Context, by string) {
	log := a.f.c.log
	if !log.Enabled(ctx, slog.LevelDebug) {
		return
	}
	log.Debug("a span was read", "path", a.f.info.Path, "block", a.id, "offset", a.off, "bytes", a.n, "reader", by)
}

// failed is the error of a span that no reader had.
func (a *attempt) failed(ctx context.Context) error {
	f := a.f
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("read %q: %w", f.info.Path, ctx.Err())
	case f.life.Err() != nil:
		return fmt.Errorf("read %q: %w", f.info.Path, cacheclient.ErrClosed)
	}
	err := errors.Join(a.tried...)
	f.c.log.Warn("no reader has a block", "path", f.info.Path, "block", a.id, "tried", err)
	return fmt.Errorf("read %q: %w: %w", f.info.Path, cacheclient.ErrUnavailable, err)
}
