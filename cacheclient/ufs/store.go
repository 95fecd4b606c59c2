package ufs

import (
	"context"
	"io"

	"millrace.io/millrace/cacheclient"
)

// Store is a read-only under store: where the data really is. All methods may be called
// from many goroutines, end with their context, and make one attempt each; the
// caller retries what Retryable says is worth it. Infos come without an ID.
type Store interface {
	// String is the source as the user gave it, without secrets, for people.
	String() string
	// Identity is everything that decides what is read: the source and each resolved option that is no pure tuning,
	// secrets by their hash only. Two stores of one identity give the same bytes, so that they may share a cache.
	Identity() string
	// Stat describes the path, "" being the root. A path that is not there is
	// fs.ErrNotExist.
	Stat(ctx context.Context, path string) (cacheclient.Info, error)
	// List calls fn for each entry of the directory as the source tells it, in the source's order,
	// without keeping them. Files may come with cacheclient.UnknownSize.
	List(ctx context.Context, dir string, fn func(cacheclient.Info) error) error
	// Open reads length bytes (at least 1, within the file) of the version info from off.
	// It returns ErrStale when the source says that it holds another version. The
	// returned Body may begin before off when the source has no ranges.
	Open(ctx context.Context, info cacheclient.Info, off, length int64) (*Body, error)
	// Close ends idle connections.
	Close() error
}

// Settler is a store that tells a change from servers behind one name that describe a file differently. What [Open]
// returns is one.
type Settler interface {
	// Settle is called when the source has described a file differently than before, with another version of the same
	// size. Where the former description comes back, only what agrees counts from then on.
	Settle(ctx context.Context, was cacheclient.Info)
}

// Agreer is a store that knows when two descriptions of a file that differ are of one version. What [Open] returns is
// one.
type Agreer interface {
	// Same reports whether two descriptions agree in all that counts since the source was settled.
	Same(was, now cacheclient.Info) bool
}

// Body is bytes on their way from the source.
type Body struct {
	io.ReadCloser
	// Start is the offset in the file of the first byte: the one asked for, or 0 where the source
	// ignores ranges and sends the whole file.
	Start int64
	// End is the offset after the last byte that will come.
	End int64
	// Confirm asks the source, after the bytes have come, whether they can only be those of the version. It is nil
	// where the answer itself proves it (a strong validator). ErrStale says that they may be others'.
	Confirm func(ctx context.Context) error
	// Alone says that Confirm speaks of the bytes of this body only, as it summed them itself.
	Alone bool
	// spent says that no more bytes will come; nil where that is not known.
	spent *flag
}

// confirmBy has the body be confirmed by a question, if there is one. In the middle of a body it does not wait for one
// of the connections that readers of bodies hold.
func (b *Body) confirmBy(ask func(ctx context.Context) error) {
	if ask == nil {
		return
	}
	b.Confirm = func(ctx context.Context) error {
		if b.spent != nil && !b.spent.Load() {
			ctx = besideBodies(ctx)
		}
		return ask(ctx)
	}
}
