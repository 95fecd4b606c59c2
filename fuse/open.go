package fuse

import (
	"context"
	"errors"
	"fmt"
	iofs "io/fs"
	"sync"
	"syscall"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"

	"millrace.io/millrace/cacheclient"
)

// openFile is a node that is open: one file of the client for all its handles.
type openFile struct {
	// ready is closed when file and err are what they will be.
	ready chan struct{}
	// file is what the handles read; nil until ready, and after a failure.
	file cacheclient.File
	// err is why there is no file; valid when ready.
	err error
	// io is how the kernel reads, and counts the handles; guarded by openTable.mu.
	io ioState
}

// openTable holds the open nodes, by node id, and their handles, which it keeps in the state.
type openTable struct {
	state *stateFile
	// mu guards the rest, and the fields of what the maps hold.
	mu    sync.RWMutex
	files map[uint64]*openFile
	// handles are by number, resent those of an earlier process by the request that opened them.
	handles, resent map[uint64]*handle
}

func newOpenTable(state *stateFile) *openTable {
	return &openTable{
		state: state, files: make(map[uint64]*openFile),
		handles: make(map[uint64]*handle), resent: make(map[uint64]*handle),
	}
}

// errAbandoned is what followers of a first open see when it ended without an answer.
var errAbandoned = errors.New("the first open of the file did not end")

// opened is the outcome of an open.
type opened struct {
	// handle is the number of the new handle.
	handle uint64
	// io is how the kernel reads.
	io ioState
	// joined says that the file was open before.
	joined bool
}

// open adds a handle to the node that the request unique opens. Of several first opens at the same time one
// calls start, and the others wait for it; where that one is interrupted, the next takes its
// place. start returns the backing id of the file, 0 where the kernel shall send READs. A request that the
// kernel sent before, to a process that died over it, gets the handle that it got then.
func (t *openTable) open(ctx context.Context, id, unique uint64, start func() (cacheclient.File, int32, error)) (
	opened, error,
) {
	waited := false
	for {
		t.mu.Lock()
		f := t.files[id]
		if h := t.resent[unique&^uniqueResent]; h != nil && unique&uniqueResent != 0 && h.node == id && f != nil {
			defer t.mu.Unlock()
			h.claimed = true
			return opened{handle: h.number, io: f.io}, nil
		}
		if f == nil {
			f = &openFile{ready: make(chan struct{})}
			t.files[id] = f
			t.mu.Unlock()
			return t.lead(f, id, unique, start)
		}
		if f.io.opens > 0 {
			defer t.mu.Unlock()
			f.io = f.io.open(0)
			return opened{handle: t.addHandle(id, unique, f.io.backing), io: f.io, joined: !waited}, nil
		}
		t.mu.Unlock()
		waited = true
		select {
		case <-f.ready:
		case <-ctx.Done():
			return opened{}, ctx.Err()
		}
		if f.err != nil && !errors.Is(f.err, context.Canceled) {
			return opened{}, f.err
		}
	}
}

// lead makes the first open of a node and tells its waiters.
func (t *openTable) lead(f *openFile, id, unique uint64, start func() (cacheclient.File, int32, error)) (
	out opened, err error,
) {
	var file cacheclient.File
	var backing int32
	err = errAbandoned
	defer func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		defer close(f.ready)
		if err == nil {
			f.file = file
			f.io = f.io.open(backing)
			out = opened{handle: t.addHandle(id, unique, backing), io: f.io}
		} else {
			f.err = err
			delete(t.files, id)
		}
	}()
	file, backing, err = start()
	return out, err
}

// addHandle makes a handle of the node; mu is held.
func (t *openTable) addHandle(id, unique uint64, backing int32) uint64 {
	h := &handle{number: t.state.nextHandle(), node: id, unique: unique &^ uniqueResent, backing: backing}
	h.saved = t.state.saveHandle(h)
	t.handles[h.number] = h
	return h.number
}

// load takes over the handles that an earlier process gave out, and returns the nodes that are open by them,
// whose files are to be given to reopened. left are the handles that were closed, whose backing ids the earlier process
// may not have unregistered, and used the backing ids of those that are open.
func (t *openTable) load() (open []uint64, left []*handle, used map[int32]bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	used = make(map[int32]bool)
	err = t.state.each(recordHandle, func(r record) error {
		h := t.state.loadHandle(r)
		t.handles[h.number], t.resent[h.unique] = h, h
		f := t.files[h.node]
		if f == nil {
			f = &openFile{ready: make(chan struct{})}
			t.files[h.node] = f
			open = append(open, h.node)
		}
		f.io = f.io.open(h.backing)
		used[h.backing] = true
		return nil
	})
	if err != nil {
		return nil, nil, nil, err
	}
	err = t.state.each(recordClosed, func(r record) error {
		left = append(left, t.state.loadHandle(r))
		return nil
	})
	return open, left, used, err
}

// reopened gives an open node of an earlier process its file, or says why it has none. It gives the file back
// where the last handle was released meanwhile.
func (t *openTable) reopened(id uint64, file cacheclient.File, err error) (unwanted cacheclient.File) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.files[id]
	if f == nil || f.io.opens == 0 {
		return file
	}
	select {
	case <-f.ready:
		// The last handle was released, and the file opened anew.
		return file
	default:
	}
	f.file, f.err = file, err
	close(f.ready)
	return nil
}

// released is what is left to do after a release: a file to close, and a backing id to unregister.
type released struct {
	file    cacheclient.File
	backing int32
	saved   record
}

// release ends a handle. What it returns is empty but for the last one of a node. A handle that is not known,
// because it was released before and the kernel never saw the answer, is none.
func (t *openTable) release(number uint64) released {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.take(t.handles[number])
}

// releaseUnclaimed ends a handle that the kernel does not know of, unless its request has come again.
func (t *openTable) releaseUnclaimed(number uint64) released {
	t.mu.Lock()
	defer t.mu.Unlock()
	h := t.handles[number]
	if h == nil || h.answered || h.claimed {
		return released{}
	}
	return t.take(h)
}

// take takes a handle out, nil for none; mu is held.
func (t *openTable) take(h *handle) released {
	if h == nil {
		return released{}
	}
	delete(t.handles, h.number)
	if t.resent[h.unique] == h {
		delete(t.resent, h.unique)
	}
	f := t.files[h.node]
	if f == nil {
		t.state.release(h.saved)
		return released{}
	}
	var backing int32
	f.io, backing = f.io.release()
	if f.io.mode != ioClosed {
		t.state.release(h.saved)
		return released{}
	}
	delete(t.files, h.node)
	if h.saved != 0 {
		// The next process must unregister the backing id if this one does not come to it.
		t.state.commit(h.saved, recordClosed)
	}
	return released{file: f.file, backing: backing, saved: h.saved}
}

// find is what is open of a node, nil where it is not open.
func (t *openTable) find(id uint64) *openFile {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.files[id]
}

// ready is the file behind an open node, or why there is none; neither where an earlier process had it open and it is
// not open again yet. Where the node is not open, it returns ErrStale.
func (t *openTable) ready(id uint64) (cacheclient.File, error) {
	f := t.find(id)
	if f == nil {
		return nil, cacheclient.ErrStale
	}
	select {
	case <-f.ready:
		return f.outcome()
	default:
		return nil, nil
	}
}

// get is the file behind an open node. It waits for the file of an earlier process to be open again.
func (t *openTable) get(ctx context.Context, id uint64) (cacheclient.File, error) {
	f := t.find(id)
	if f == nil {
		return nil, cacheclient.ErrStale
	}
	select {
	case <-f.ready:
		return f.outcome()
	case <-ctx.Done():
		return nil, fmt.Errorf("the file, which an earlier process had open, is not open again: %w", ctx.Err())
	}
}

// outcome is the file, or why there is none; f is ready.
func (f *openFile) outcome() (cacheclient.File, error) {
	if f.file == nil {
		return nil, f.err
	}
	return f.file, nil
}

// awaited reports whether an open node of an earlier process has neither a file yet nor an error.
func (t *openTable) awaited(id uint64) bool {
	f := t.find(id)
	if f == nil {
		return false
	}
	select {
	case <-f.ready:
		return false
	default:
		return true
	}
}

// answering notes that the kernel is told of a handle, which it releases from then on. That is noted before the answer:
// a process that dies between the two leaves a handle open, and not one released that is in use.
func (t *openTable) answering(number uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if h := t.handles[number]; h != nil && !h.answered {
		h.answered = true
		t.state.saveAnswered(h)
	}
}

// unclaimed are the handles of an earlier process of which no caller was told, and whose request did not come again:
// the caller was killed, and the kernel will not release them.
func (t *openTable) unclaimed() []uint64 {
	t.mu.RLock()
	defer t.mu.RUnlock()
	var numbers []uint64
	for _, h := range t.resent {
		if !h.answered && !h.claimed {
			numbers = append(numbers, h.number)
		}
	}
	return numbers
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
	o, err := fs.opens.open(ctx, n.id, in.Unique, func() (cacheclient.File, int32, error) {
		file, err := fs.client.Open(ctx, fs.nodes.info(n))
		if err != nil {
			return nil, 0, err
		}
		return file, fs.registerLocal(n, file), nil
	})
	if o.joined {
		if err = fs.stands(ctx, n); err != nil {
			fs.releaseHandle(o.handle)
		}
	}
	if err != nil {
		return fs.fail(opOpen, n.path(), silence(ctx, err))
	}
	fs.refresh(n)
	out.Fh = o.handle
	if o.io.mode == ioPassthrough {
		fs.stats.passthroughOpens.Add(1)
		// The kernel refuses FOPEN_KEEP_CACHE here: there are no pages of its own to keep.
		out.OpenFlags = gofuse.FOPEN_PASSTHROUGH
		out.BackingID = o.io.backing
		return gofuse.OK
	}
	fs.stats.copyOpens.Add(1)
	out.OpenFlags = gofuse.FOPEN_KEEP_CACHE
	return gofuse.OK
}

// knower is a client that tells what it knows of a path, from memory.
type knower interface {
	// Known is what the client was told last of the path, however long ago.
	Known(path string) (cacheclient.Info, bool)
}

// refresh has the kernel ask for a node's attributes again where the open found out that they are others: the source
// was asked about the version, and told the permissions with it.
func (fs *filesystem) refresh(n *node) {
	k, ok := fs.client.(knower)
	if !ok {
		return
	}
	if info, known := k.Known(n.path()); known && fs.nodes.update(n, info) {
		fs.forgetAttributes(n.id)
	}
}

// stands asks the client whether a version that is open already is still the source's: an open must not
// get an old version because another holds it, or because the kernel's RELEASE is still on
// its way. Only a change is an error; what a source that fails says does not matter here.
func (fs *filesystem) stands(ctx context.Context, n *node) error {
	file, err := fs.client.Open(ctx, fs.nodes.info(n))
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
	if n.size == 0 {
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
	fs.releaseHandle(in.Fh)
}

// releaseHandle ends one handle of a node, and gives the file back at the last one.
func (fs *filesystem) releaseHandle(handle uint64) { fs.giveBack(fs.opens.release(handle)) }

// giveBack does what is left to do after a release.
func (fs *filesystem) giveBack(r released) {
	if r.backing != 0 {
		fs.backing.unregister(r.backing)
	}
	fs.opens.state.release(r.saved)
	fs.closeFile(r.file)
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
