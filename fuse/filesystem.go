package fuse

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"runtime/debug"
	"syscall"
	"time"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"

	"millrace.io/millrace/cacheclient"
)

// blockSize is st_blksize in bytes. cp, cat and dd read 128 KiB and more whatever it says; stdio
// and Python take it for their buffers, and fill a whole buffer for each small random read. 64
// KiB serves both.
const blockSize = 64 << 10

// statfsUnit is the block size in which statfs counts, in bytes.
const statfsUnit = 4096

// maxNameLength is the longest name that the kernel takes in bytes (FUSE_NAME_LOW_MAX).
const maxNameLength = 1024

// filesystem answers requests out of a client. READ is not among its methods: see read.go.
type filesystem struct {
	readOnly
	client   cacheclient.Client
	nodes    *nodeTable
	opens    *openTable
	dirs     *dirTable
	numbers  *inodeNumbers
	inflight *inflight
	faults   *faultLog
	stats    *counters
	log      *slog.Logger

	ttl      time.Duration
	nameTTL  time.Duration
	timeout  time.Duration
	fileMode uint32
	dirMode  uint32
	uid, gid uint32
	// born is the modification time of the root and of directories whose source tells none.
	born time.Time

	// backing registers local files with the kernel.
	backing *backing
}

// String names the file system in go-fuse's messages.
func (*filesystem) String() string { return "millrace" }

// waiting is the context of a request that asks the client for metadata. INTERRUPT, the session's end and a silence
// as long as the deadline end it, but not the time that an answer takes which comes: a long listing, a file that is
// compared.
func (fs *filesystem) waiting(h *gofuse.InHeader) (context.Context, context.CancelFunc) {
	return cacheclient.Patient(fs.inflight.context(h.Unique), fs.timeout)
}

// silence is the error of a request that waited, or that nothing came of it.
func silence(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); err != nil && errors.Is(cause, context.DeadlineExceeded) {
		return cause
	}
	return err
}

// fail is the status of an error, which is logged where the application sees only EIO.
func (fs *filesystem) fail(op uint32, path string, err error) gofuse.Status {
	errno := errnoOf(err)
	if errno == syscall.EIO {
		fs.faults.report(opName(op), path, err)
	}
	return gofuse.Status(errno)
}

// panicked notes a panic in a handler; the request that met it is answered with EIO.
func (fs *filesystem) panicked(r any) {
	fs.stats.panics.Add(1)
	fs.log.Error("a request failed by a panic", "panic", r, "stack", string(debug.Stack()))
}

// missingTTL bounds how long the kernel believes that a name is not there. What is not there may come, as a mount does
// that is added to a Dataset, and the answer is in memory.
const missingTTL = time.Second

// Lookup finds a name in a directory. The absence of a name is remembered by the kernel
// like its presence.
func (fs *filesystem) Lookup(_ <-chan struct{}, h *gofuse.InHeader, name string, out *gofuse.EntryOut) gofuse.Status {
	parent := fs.nodes.get(h.NodeId)
	if parent == nil {
		return estale
	}
	if len(name) > maxNameLength {
		return gofuse.Status(syscall.ENAMETOOLONG)
	}
	ctx, cancel := fs.waiting(h)
	defer cancel()
	path := parent.child(name)
	info, err := fs.client.Stat(ctx, path)
	err = silence(ctx, err)
	if errnoOf(err) == syscall.ENOENT {
		*out = gofuse.EntryOut{}
		out.SetEntryTimeout(min(fs.ttl, missingTTL))
		return gofuse.OK
	}
	if err != nil {
		return fs.fail(opLookup, path, err)
	}
	n, err := fs.nodes.add(parent, name, info)
	if err != nil {
		return fs.fail(opLookup, path, err)
	}
	fs.entry(n, out)
	return gofuse.OK
}

// Forget takes back what lookups gave.
func (fs *filesystem) Forget(id, count uint64) {
	if fs.nodes.forget(id, count) {
		fs.dirs.forget(id)
	}
}

// GetAttr tells a node's attributes. The source is asked about directories alone, as those of a file come with each
// lookup, and the root must not depend on the source. Where the source does not answer, those of before stand.
func (fs *filesystem) GetAttr(_ <-chan struct{}, in *gofuse.GetAttrIn, out *gofuse.AttrOut) gofuse.Status {
	n := fs.nodes.get(in.NodeId)
	if n == nil {
		return estale
	}
	if n.dir && n.id != rootID {
		ctx, cancel := fs.waiting(&in.InHeader)
		defer cancel()
		if info, err := fs.client.Stat(ctx, n.path()); err == nil {
			fs.nodes.update(n, info)
		}
	}
	fs.attr(n, &out.Attr)
	out.SetTimeout(fs.attrTTL(n))
	return gofuse.OK
}

// forgetAttributes has the kernel ask for a node's attributes. It may not know the node any more.
func (fs *filesystem) forgetAttributes(id uint64) {
	_ = fs.backing.dev.write(invalidateAttributes(id))
}

// StatFs tells the cache's size and use, from memory.
func (fs *filesystem) StatFs(_ <-chan struct{}, _ *gofuse.InHeader, out *gofuse.StatfsOut) gofuse.Status {
	c := fs.client.Capacity()
	free := max(c.Quota-c.Used, 0)
	*out = gofuse.StatfsOut{
		Blocks:  uint64(max(c.Quota, 0)) / statfsUnit,
		Bfree:   uint64(free) / statfsUnit,
		Bavail:  uint64(free) / statfsUnit,
		Bsize:   statfsUnit,
		Frsize:  statfsUnit,
		NameLen: maxNameLength,
	}
	return gofuse.OK
}

// immutable is how long the attributes of the root are good, of which no source tells.
const immutable = 365 * 24 * time.Hour

// attrTTL is how long the kernel may believe a node's attributes: as long as its name, with which they come anew. What
// says which version it is stands for good, but permissions and times may change without another version.
func (fs *filesystem) attrTTL(n *node) time.Duration {
	if n.id == rootID {
		return immutable
	}
	return fs.nameTTL
}

// entry fills in a reply that gives a node to the kernel.
func (fs *filesystem) entry(n *node, out *gofuse.EntryOut) {
	out.NodeId = n.id
	out.SetEntryTimeout(fs.nameTTL)
	out.SetAttrTimeout(fs.attrTTL(n))
	fs.attr(n, &out.Attr)
}

// attr fills in the attributes of a node.
func (fs *filesystem) attr(n *node, out *gofuse.Attr) {
	attrs := fs.nodes.attributes(n)
	mode := syscall.S_IFREG | fs.fileMode
	if n.dir {
		mode = syscall.S_IFDIR | fs.dirMode
	}
	if attrs.permKnown {
		mode = mode&^uint32(os.ModePerm) | uint32(attrs.perm)&^0o222
	}
	*out = gofuse.Attr{
		Ino:    fs.numbers.of(n.id),
		Size:   uint64(n.size),
		Blocks: (uint64(n.size) + 511) / 512,
		Mode:   mode,
		// Also of a directory: 2 would tell find(1) that it has no subdirectories.
		Nlink:   1,
		Owner:   gofuse.Owner{Uid: fs.uid, Gid: fs.gid},
		Blksize: blockSize,
	}
	t := attrs.modTime()
	if t.IsZero() {
		t = fs.born
	}
	out.SetTimes(&t, &t, &t)
}
