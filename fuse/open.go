package fuse

import (
	"context"
	"errors"
	iofs "io/fs"
	"sync"
	"syscall"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"

	"millrace.io/millrace/cacheclient"
)

// openFile is a node that is open: one file of the client for all its handles.
type openFile struct {
	// ready is closed when the first open has ended, well or not.
	ready chan struct{}
	// file is what the handles read; nil until ready, and after a failure.
	file cacheclient.File
	// err is the first open's failure; valid when ready.
	err error
	// io is how the kernel reads; guarded by openTable.mu.
	io ioState
}

// openTable holds the open nodes, by node id.
type openTable struct {
	// mu guards files and the fields of what it holds.
	mu    sync.RWMutex
	files map[uint64]*openFile
}

// errAbandoned is what followers of a first open see when it ended without an answer.
var errAbandoned = errors.New("the first open of the file did not end")

// open counts one more handle of the node. Of several first opens at the same time one
// calls start, and the others wait for it; where that one is interrupted, the next takes its
// place. start returns the backing id of the file, 0 where the kernel shall send READs. joined says
// that the file was open before this call.
func (t *openTable) open(ctx context.Context, id uint64, start func() (cacheclient.File, int32, error)) (state ioState, joined bool, err error) {
	waited := false
	for {
		t.mu.Lock()
		f := t.files[id]
		if f == nil {
			f = &openFile{ready: make(chan struct{})}
			t.files[id] = f
			t.mu.Unlock()
			state, err = t.lead(f, id, start)
			return state, false, err
		}
		if f.file != nil {
			f.io = f.io.open(0)
			state = f.io
			t.mu.Unlock()
			return state, !waited, nil
		}
		t.mu.Unlock()
		waited = true
		select {
		case <-f.ready:
		case <-ctx.Done():
			return ioState{}, false, ctx.Err()
		}
		if f.err != nil && !errors.Is(f.err, context.Canceled) {
			return ioState{}, false, f.err
		}
	}
}

// lead makes the first open of a node and tells those who wait for it.
func (t *openTable) lead(f *openFile, id uint64, start func() (cacheclient.File, int32, error)) (state ioState, err error) {
	var file cacheclient.File
	var backing int32
	err = errAbandoned
	defer func() {
		t.mu.Lock()
		if err == nil {
			f.file = file
			f.io = f.io.open(backing)
			state = f.io
		} else {
			f.err = err
			delete(t.files, id)
		}
		close(f.ready)
		t.mu.Unlock()
	}()
	file, backing, err = start()
	return state, err
}

// release counts one handle less. It returns the file to close at the last one, with
// the backing id to unregister.
func (t *openTable) release(id uint64) (file cacheclient.File, backing int32) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.files[id]
	if f == nil || f.file == nil {
		return nil, 0
	}
	f.io, backing = f.io.release()
	if f.io.mode != ioClosed {
		return nil, 0
	}
	delete(t.files, id)
	return f.file, backing
}

// get is the file behind an open node, nil where it is not open.
func (t *openTable) get(id uint64) cacheclient.File {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if f := t.files[id]; f != nil {
		return f.file
	}
	return nil
}

// drain takes out all open files, for the session's end.
func (t *openTable) drain() []cacheclient.File {
	t.mu.Lock()
	defer t.mu.Unlock()
	var files []cacheclient.File
	for _, f := range t.files {
		if f.file != nil {
			files = append(files, f.file)
		}
	}
	clear(t.files)
	return files
}

// count is the number of open nodes.
func (t *openTable) count() int {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return len(t.files)
}

// Open opens one version of a file. ErrStale becomes ESTALE, upon which the kernel looks
// the path up again and opens the new version.
func (fs *filesystem) Open(_ <-chan struct{}, in *gofuse.OpenIn, out *gofuse.OpenOut) gofuse.Status {
	if in.Flags&syscall.O_ACCMODE != syscall.O_RDONLY || in.Flags&syscall.O_TRUNC != 0 {
		return erofs
	}
	n := fs.nodes.get(in.NodeId)
	if n == nil {
		return estale
	}
	ctx, cancel := fs.waiting(&in.InHeader)
	defer cancel()
	state, joined, err := fs.opens.open(ctx, n.id, func() (cacheclient.File, int32, error) {
		file, err := fs.client.Open(ctx, n.info())
		if err != nil {
			return nil, 0, err
		}
		return file, fs.registerLocal(n, file), nil
	})
	if joined {
		if err = fs.stands(ctx, n); err != nil {
			fs.release(n.id)
		}
	}
	if err != nil {
		return fs.fail(opOpen, n.path(), err)
	}
	if state.mode == ioPassthrough {
		fs.stats.passthroughOpens.Add(1)
		// The kernel refuses FOPEN_KEEP_CACHE here: there are no pages of its own to keep.
		out.OpenFlags = gofuse.FOPEN_PASSTHROUGH
		out.BackingID = state.backing
		return gofuse.OK
	}
	fs.stats.copyOpens.Add(1)
	out.OpenFlags = gofuse.FOPEN_KEEP_CACHE
	return gofuse.OK
}

// stands asks the client whether a version that is open already is still the source's: an open must not
// get an old version because somebody holds it, or because the kernel's RELEASE is still on
// its way. Only a change is an error; what a source that fails says does not matter here.
func (fs *filesystem) stands(ctx context.Context, n *node) error {
	file, err := fs.client.Open(ctx, n.info())
	if err == nil {
		fs.closeFile(file)
		return nil
	}
	if errors.Is(err, cacheclient.ErrStale) || errors.Is(err, iofs.ErrNotExist) {
		return err
	}
	return nil
}

// registerLocal registers the local file behind a file, if there is one, and returns its
// backing id; 0 means copy mode.
func (fs *filesystem) registerLocal(n *node, file cacheclient.File) int32 {
	if fs.backing == nil || n.size == 0 {
		return 0
	}
	local, ok := file.Local()
	if !ok {
		return 0
	}
	return fs.backing.register(local)
}

// Release ends one handle.
func (fs *filesystem) Release(_ <-chan struct{}, in *gofuse.ReleaseIn) {
	fs.release(in.NodeId)
}

// release ends one handle of the node, and gives the file back at the last one.
func (fs *filesystem) release(id uint64) {
	file, backing := fs.opens.release(id)
	if backing != 0 {
		fs.backing.unregister(backing)
	}
	fs.closeFile(file)
}

// closeFile gives a file back to the client.
func (fs *filesystem) closeFile(file cacheclient.File) {
	if file == nil {
		return
	}
	if err := file.Close(); err != nil && !errors.Is(err, cacheclient.ErrClosed) {
		fs.log.Warn("closing a file failed", "path", file.Info().Path, "error", err)
	}
}
