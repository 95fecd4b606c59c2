package fuse

import (
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

// dotEntries is the number of entries ("." and "..") that stand before the client's: the
// entry at the client's cursor k is the directory's entry k+dotEntries, and the kernel's offset
// of an entry is the number of entries up to and including it.
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
	page, err := fs.client.List(ctx, n.path(), 0, 1, false)
	if err != nil {
		return fs.fail(opOpenDir, n.path(), err)
	}
	out.OpenFlags = gofuse.FOPEN_CACHE_DIR
	if fs.nodes.relist(n.id, page.Version) {
		out.OpenFlags |= gofuse.FOPEN_KEEP_CACHE
	}
	return gofuse.OK
}

// ReleaseDir ends a listing, of which nothing is kept here.
func (*filesystem) ReleaseDir(*gofuse.ReleaseIn) {}

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
func (fs *filesystem) list(in *gofuse.ReadIn, op uint32, emit func(*node, gofuse.DirEntry, cacheclient.Info) bool) gofuse.Status {
	dir := fs.nodes.get(in.NodeId)
	if dir == nil {
		return estale
	}
	if !dir.dir {
		return gofuse.ENOTDIR
	}
	for next := in.Offset; next < dotEntries; next++ {
		if !emit(dir, dotEntry(dir, next), cacheclient.Info{}) {
			return gofuse.OK
		}
	}
	ctx, cancel := fs.waiting(&in.InHeader)
	defer cancel()
	from := max(in.Offset, dotEntries) - dotEntries
	limit := pageLimit(op, int(in.Size))
	path := dir.path()
	// One page fills the reply, but a reply without entries means the end to the kernel: where
	// all of a page had to be passed over, the next one follows.
	for emitted := false; !emitted; {
		page, err := fs.client.List(ctx, path, from, limit, op == opReadDirPlus)
		if err != nil {
			return fs.fail(op, path, err)
		}
		fs.nodes.mixed(dir.id, page.Version)
		for _, info := range page.Entries {
			from++
			if !listable(info.Name()) {
				fs.log.Warn("a name cannot be shown", "directory", path, "name", info.Name())
				continue
			}
			if !emit(dir, direntOf(info, from+dotEntries), info) {
				return gofuse.OK
			}
			emitted = true
		}
		if page.End || len(page.Entries) == 0 {
			return gofuse.OK
		}
	}
	return gofuse.OK
}

// dotEntry is "." at the offset 0 and ".." at 1.
func dotEntry(dir *node, offset uint64) gofuse.DirEntry {
	e := gofuse.DirEntry{Name: ".", Ino: dir.id, Mode: syscall.S_IFDIR, Off: offset + 1}
	if offset == 1 {
		e.Name = ".."
		if dir.parent != nil {
			e.Ino = dir.parent.id
		}
	}
	return e
}

// direntOf is an entry as the kernel sees it; next is the offset behind it.
func direntOf(info cacheclient.Info, next uint64) gofuse.DirEntry {
	e := gofuse.DirEntry{Name: info.Name(), Ino: info.ID, Mode: syscall.S_IFREG, Off: next}
	if info.Dir {
		e.Mode = syscall.S_IFDIR
	}
	return e
}

// pageLimit is the number of entries that a reply of size bytes has room for, by guess.
func pageLimit(op uint32, size int) int {
	each := direntSize + usualName
	if op == opReadDirPlus {
		each = direntplusSize + usualName
	}
	return min(max(size/each, 1), maxPage)
}

// listable tells whether the kernel takes the name; it answers a listing with one
// bad name by EIO as a whole.
func listable(name string) bool {
	return name != "" && name != "." && name != ".." && len(name) <= maxNameLength &&
		!strings.ContainsAny(name, "/\x00")
}
