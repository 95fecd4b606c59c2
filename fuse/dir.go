package fuse

import (
	"errors"
	"strings"
	"syscall"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"

	"millrace.io/millrace/cacheclient"
)

const (
	// direntSize is sizeof(struct fuse_dirent), direntplusSize that of struct
	// fuse_direntplus, both without the name.
	direntSize     = 24
	direntplusSize = 128 + direntSize
	// usualName is the length of a name, in bytes, for which pages are sized.
	usualName = 16
	// maxPage bounds the entries that are asked of the client at a time. With attributes each
	// may cost a request to the source.
	maxPage = 1024
)

// dotEntries is the number of entries ("." and "..") that stand before the client's. What the offsets behind those mean
// is in dirhandles.go.
const dotEntries = 2

// OpenDir begins a listing. The kernel keeps the entries that it is given, and may use
// those of an earlier listing where the directory has not changed.
func (fs *filesystem) OpenDir(_ <-chan struct{}, in *gofuse.OpenIn, out *gofuse.OpenOut) gofuse.Status {
	n := fs.nodes.get(in.NodeId)
	if n == nil {
		return estale
	}
	ctx, cancel := fs.waiting(&in.InHeader)
	defer cancel()
	page, err := fs.client.List(ctx, n.path(), cacheclient.Cursor{}, 1, false)
	if errors.Is(err, cacheclient.ErrNotDir) {
		if info, statErr := fs.client.Stat(ctx, n.path()); statErr == nil && !info.Dir {
			// The kernel looks the name up anew, and opens the file that it is now.
			return estale
		}
	}
	if err != nil {
		return fs.fail(opOpenDir, n.path(), silence(ctx, err))
	}
	var keep bool
	out.OpenFlags = gofuse.FOPEN_CACHE_DIR
	if out.Fh, keep = fs.dirs.open(n.id, in.Unique, page.Version); keep {
		out.OpenFlags |= gofuse.FOPEN_KEEP_CACHE
	}
	return gofuse.OK
}

// ReleaseDir ends a listing.
func (fs *filesystem) ReleaseDir(in *gofuse.ReleaseIn) { fs.dirs.release(in.Fh) }

// ReadDir lists names and kinds.
func (fs *filesystem) ReadDir(_ <-chan struct{}, in *gofuse.ReadIn, out *gofuse.DirEntryList) gofuse.Status {
	return fs.list(in, opReadDir, func(_ *node, e gofuse.DirEntry, _ cacheclient.Info) bool {
		return out.AddDirEntry(e)
	})
}

// ReadDirPlus lists names with attributes; each entry that has some is a lookup.
func (fs *filesystem) ReadDirPlus(_ <-chan struct{}, in *gofuse.ReadIn, out *gofuse.DirEntryList) gofuse.Status {
	return fs.list(in, opReadDirPlus, func(dir *node, e gofuse.DirEntry, info cacheclient.Info) bool {
		entry := out.AddDirLookupEntry(e)
		if entry == nil {
			return false
		}
		if info.ID == 0 {
			return true
		}
		n, err := fs.nodes.add(dir, e.Name, info)
		if err != nil {
			// Without a node id the kernel looks the name up, and that tells the error.
			return true
		}
		fs.entry(n, entry)
		return true
	})
}

// list gives emit the entries from the offset on until it has no room; emit gets an
// empty Info for "." and "..".
func (fs *filesystem) list(
	in *gofuse.ReadIn, op uint32, emit func(*node, gofuse.DirEntry, cacheclient.Info) bool,
) gofuse.Status {
	dir := fs.nodes.get(in.NodeId)
	if dir == nil {
		return estale
	}
	if !dir.dir {
		return gofuse.ENOTDIR
	}
	for next := in.Offset; next < dotEntries; next++ {
		if !emit(dir, fs.dotEntry(dir, next), cacheclient.Info{}) {
			return gofuse.OK
		}
	}
	ctx, cancel := fs.waiting(&in.InHeader)
	defer cancel()
	limit := pageLimit(op, int(in.Size))
	path := dir.path()
	from, err := fs.dirs.cursor(in.Fh, dir.id, in.Offset)
	if err != nil {
		return fs.fail(op, path, err)
	}
	last := max(in.Offset, dotEntries)
	places, _ := dirPlaces{}.with(0, last, from.After)
	// The state has the places before the kernel has the reply.
	defer func() { fs.dirs.replied(in.Fh, places) }()
	// One page fills the reply, but a reply without entries means the end to the kernel: where
	// all of a page had to be passed over, the next one follows.
	for emitted := false; !emitted; {
		page, err := fs.client.List(ctx, path, from, limit, op == opReadDirPlus)
		if err != nil {
			return fs.fail(op, path, silence(ctx, err))
		}
		fs.dirs.mixed(dir.id, page.Version)
		next := fs.dirs.first(dir.id, page)
		for _, info := range page.Entries {
			next++
			if !listable(info.Name()) {
				fs.log.Warn("a name cannot be shown", "directory", path, "name", info.Name())
				continue
			}
			noted, room := places.with(last, next, info.Name())
			if !room || !emit(dir, fs.direntOf(info, next), info) {
				return gofuse.OK
			}
			places, last, emitted = noted, next, true
		}
		if page.End || len(page.Entries) == 0 {
			return gofuse.OK
		}
		from = page.Next
	}
	return gofuse.OK
}

// dotEntry is "." at the offset 0 and ".." at 1.
func (fs *filesystem) dotEntry(dir *node, offset uint64) gofuse.DirEntry {
	e := gofuse.DirEntry{Name: ".", Ino: fs.numbers.of(dir.id), Mode: syscall.S_IFDIR, Off: offset + 1}
	if offset == 1 {
		e.Name = ".."
		if dir.parent != nil {
			e.Ino = fs.numbers.of(dir.parent.id)
		}
	}
	return e
}

// direntOf is an entry as the kernel sees it; next is the offset behind it.
func (fs *filesystem) direntOf(info cacheclient.Info, next uint64) gofuse.DirEntry {
	return gofuse.DirEntry{Name: info.Name(), Ino: fs.numbers.of(info.ID), Mode: kindOf(info), Off: next}
}

// kindOf is the kind of an entry as d_type has it, 0 for DT_UNKNOWN, after which programs stat it. What a page of links
// shows without a slash may be a directory all the same: it is a file once its attributes are known.
func kindOf(info cacheclient.Info) uint32 {
	switch {
	case info.Dir:
		return syscall.S_IFDIR
	case info.ID == 0:
		return 0
	}
	return syscall.S_IFREG
}

// pageLimit is the number of entries that a reply of size bytes has room for, by guess.
func pageLimit(op uint32, size int) int {
	each := direntSize + usualName
	if op == opReadDirPlus {
		each = direntplusSize + usualName
	}
	return min(max(size/each, 1), maxPage)
}

// listable reports whether the kernel takes the name; it answers a listing with one
// bad name by EIO as a whole.
func listable(name string) bool {
	return name != "" && name != "." && name != ".." && len(name) <= maxNameLength &&
		!strings.ContainsAny(name, "/\x00")
}
