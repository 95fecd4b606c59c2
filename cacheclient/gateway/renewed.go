package gateway

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/ufs"
)

// RenewEvery is how often it is looked whether the options have changed, for Watch.
const RenewEvery = 2 * time.Second

// mostOptions bounds what is read of a file of options, in bytes.
const mostOptions = 1 << 20

// Renewed is a source whose options are read again when their file changes, so that a rotated key needs no other
// process. Options that no source can be opened with are an error of each request, until there are others. Bodies that
// are on their way end as they began. D-241 says why.
type Renewed struct {
	name string
	file string
	open func(context.Context) (ufs.Store, error)
	log  *slog.Logger

	// mu guards the rest.
	mu sync.RWMutex
	// store is nil where the options are not good for one, which err says.
	store ufs.Store
	err   error
	// text is what the file of options has, for which store was opened, and info which file that was: kubelet replaces
	// all files of a Secret together, also those that are named in the options.
	text []byte
	info os.FileInfo
}

var _ ufs.Store = (*Renewed)(nil)

// NewRenewed is the source that open opens, which reads the file of options; name is the source for people. An error of
// open is an error of each request.
func NewRenewed(
	ctx context.Context, name, file string, open func(context.Context) (ufs.Store, error), log *slog.Logger,
) *Renewed {
	r := &Renewed{name: name, file: file, open: open, log: log}
	text, info, err := r.read()
	r.take(ctx, text, info, err)
	return r
}

// Watch reads the options again when they change, until the context ends.
func (r *Renewed) Watch(ctx context.Context, every time.Duration) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		text, info, err := r.read()
		r.mu.RLock()
		// What is named in the options, such as the file of an authority, may come to be there.
		same := err == nil && r.err == nil && bytes.Equal(text, r.text) && os.SameFile(info, r.info)
		r.mu.RUnlock()
		if !same {
			r.take(ctx, text, info, err)
		}
	}
}

// read is what the file has now, and which file it is.
func (r *Renewed) read() ([]byte, os.FileInfo, error) {
	f, err := os.Open(r.file)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	text, err := io.ReadAll(io.LimitReader(f, mostOptions))
	return text, info, err
}

// take opens the source with the options as they are now, of which text was read.
func (r *Renewed) take(ctx context.Context, text []byte, info os.FileInfo, err error) {
	var store ufs.Store
	if err == nil {
		store, err = r.open(ctx)
	}
	err = ofOptions(err)
	r.mu.Lock()
	before, first := r.store, r.info == nil && r.err == nil
	again := r.err != nil && err != nil && r.err.Error() == err.Error()
	r.store, r.err, r.text, r.info = store, err, text, info
	r.mu.Unlock()
	if before != nil {
		_ = before.Close()
	}
	switch {
	case err != nil && !again:
		r.log.Warn("the source cannot be read with these options; they are looked at again", "error", err)
	case err == nil && !first:
		r.log.Info("the source is read with other options")
	}
}

// ofOptions is an error of opening a source without what it means to a file system, unless the source said it: that a
// file named in an option is not there must not look as if the source had none.
func ofOptions(err error) error {
	var status *ufs.StatusError
	if err == nil || errors.As(err, &status) || errors.Is(err, cacheclient.ErrUnavailable) {
		return err
	}
	return errors.New(err.Error())
}

// Options is the Fingerprint of the options in force, by a gateway's keys.
func (r *Renewed) Options(keys Keys) string {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return Fingerprint(keys, r.text)
}

// now is the source as it is to be asked now.
func (r *Renewed) now() (ufs.Store, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.store, r.err
}

// String implements ufs.Store.
func (r *Renewed) String() string { return r.name }

// Identity implements ufs.Store. A gateway keeps nothing of a source, so it is the name.
func (r *Renewed) Identity() string { return r.name }

// Stat implements ufs.Store.
func (r *Renewed) Stat(ctx context.Context, path string) (cacheclient.Info, error) {
	store, err := r.now()
	if err != nil {
		return cacheclient.Info{}, err
	}
	return store.Stat(ctx, path)
}

// List implements ufs.Store.
func (r *Renewed) List(ctx context.Context, dir string, fn func(cacheclient.Info) error) error {
	store, err := r.now()
	if err != nil {
		return err
	}
	return store.List(ctx, dir, fn)
}

// Open implements ufs.Store.
func (r *Renewed) Open(ctx context.Context, info cacheclient.Info, off, length int64) (*ufs.Body, error) {
	store, err := r.now()
	if err != nil {
		return nil, err
	}
	return store.Open(ctx, info, off, length)
}

// Close implements ufs.Store. Watch has ended before.
func (r *Renewed) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	store := r.store
	r.store, r.err = nil, errors.New("the source is closed")
	if store == nil {
		return nil
	}
	return store.Close()
}
