package main

import (
	"context"
	"sync/atomic"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/ufs"
)

// renewable is an under store behind which another one of the same source can take over, with other secrets. Its
// identity stays that of the first, so that the cache above it stays, too.
type renewable struct {
	identity string
	now      atomic.Pointer[ufs.Store]
}

var (
	_ ufs.Store = (*renewable)(nil)
	_ ufs.Noted = (*renewable)(nil)

	_ ufs.Settler = (*renewable)(nil)
)

func newRenewable(store ufs.Store) *renewable {
	r := &renewable{identity: store.Identity()}
	r.now.Store(&store)
	return r
}

// renew has what follows be asked of another store. What is under way ends with the one that was.
func (r *renewable) renew(store ufs.Store) error { return (*r.now.Swap(&store)).Close() }

func (r *renewable) String() string { return (*r.now.Load()).String() }

// Identity implements ufs.Store.
func (r *renewable) Identity() string { return r.identity }

// Settle implements ufs.Settler.
func (r *renewable) Settle(ctx context.Context, was cacheclient.Info) {
	if s, ok := (*r.now.Load()).(ufs.Settler); ok {
		s.Settle(ctx, was)
	}
}

// Notes implements ufs.Noted.
func (r *renewable) Notes() []string {
	if noted, ok := (*r.now.Load()).(ufs.Noted); ok {
		return noted.Notes()
	}
	return nil
}

// Stat implements ufs.Store.
func (r *renewable) Stat(ctx context.Context, path string) (cacheclient.Info, error) {
	return (*r.now.Load()).Stat(ctx, path)
}

// List implements ufs.Store.
func (r *renewable) List(ctx context.Context, dir string, fn func(cacheclient.Info) error) error {
	return (*r.now.Load()).List(ctx, dir, fn)
}

// Open implements ufs.Store.
func (r *renewable) Open(ctx context.Context, info cacheclient.Info, off, length int64) (*ufs.Body, error) {
	return (*r.now.Load()).Open(ctx, info, off, length)
}

// Close implements ufs.Store.
func (r *renewable) Close() error { return (*r.now.Load()).Close() }
