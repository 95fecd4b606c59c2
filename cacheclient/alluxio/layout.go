package alluxio

import (
	"os"
	"strconv"
	"strings"
	"time"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/alluxio/rpc"
	"millrace.io/millrace/cacheclient/alluxio/wire"
)

// layout is what a version of a file is made of. All of it follows from the file's id and block size, which are
// the version's mark in [cacheclient.Info]: a process that comes after this one reads what is cached of an open file
// without a master.
//
// Alluxio gives a file that changed at the source a new id, so a block id never stands for two contents.
// D-045 says why.
type layout struct {
	fileID, blockSize, size int64
}

// markPrefix begins the Version of what Alluxio told, and tells it from an under store's own marks.
const markPrefix = "alluxio:"

// mark is the layout as Info.Version has it.
func (l layout) mark() string {
	return markPrefix + strconv.FormatInt(l.fileID, 16) + ":" + strconv.FormatInt(l.blockSize, 16)
}

// layoutOf reads the layout of an Info; false where it is not Alluxio's but the under store's own.
func layoutOf(i cacheclient.Info) (layout, bool) {
	rest, ok := strings.CutPrefix(i.Version, markPrefix)
	if !ok {
		return layout{}, false
	}
	id, size, _ := strings.Cut(rest, ":")
	l := layout{size: i.Size}
	var err, err2 error
	l.fileID, err = strconv.ParseInt(id, 16, 64)
	l.blockSize, err2 = strconv.ParseInt(size, 16, 64)
	return l, err == nil && err2 == nil && l.possible()
}

// possible reports whether a file can lie in blocks like this. A mark may come from another process's state.
func (l layout) possible() bool {
	return l.all().Possible()
}

// notOurs is a version that an under store tells, such that it is not taken for a mark of Alluxio's; asTold is what
// the store told.
func notOurs(version string) string {
	if strings.HasPrefix(strings.TrimLeft(version, escape), markPrefix) {
		return escape + version
	}
	return version
}

func asTold(version string) string {
	if strings.HasPrefix(strings.TrimLeft(version, escape), markPrefix) {
		return strings.TrimPrefix(version, escape)
	}
	return version
}

// escape stands before what an under store tells and looks like a mark.
const escape = "~"

// all are the file's blocks.
func (l layout) all() rpc.Blocks {
	return rpc.Blocks{FileID: l.fileID, Size: l.blockSize, Length: l.size}
}

// blocks is how many blocks the file has; an empty one has none.
func (l layout) blocks() int { return l.all().Count() }

// block is the id of the k-th block.
func (l layout) block(k int) int64 { return l.all().ID(k) }

// number is which block of the file an id is; false where it is none of its blocks.
func (l layout) number(id int64) (k int, ok bool) { return l.all().Number(id) }

// told are the workers' addresses of blocks as the masters tell them with the file, by number. Of blocks that they do
// not know they tell nothing, and what they tell of others than this file's is not believed.
func (l layout) told(f *wire.FileInfo) map[int][]*wire.BlockLocation {
	places := make(map[int][]*wire.BlockLocation)
	for _, b := range f.GetFileBlockInfos() {
		if k, ok := l.number(b.GetBlockInfo().GetBlockId()); ok {
			at := b.GetBlockInfo().GetLocations()
			places[k] = at[:min(len(at), rpc.MostLocations)]
		}
	}
	return places
}

// length is that of the k-th block in bytes.
func (l layout) length(k int) int64 { return l.all().LengthOf(k) }

// infoOf is what Alluxio tells of a path, relative to the mount's root.
func infoOf(f *wire.FileInfo, path string) cacheclient.Info {
	i := cacheclient.Info{
		Path: path, Dir: f.GetFolder(), Mode: os.FileMode(f.GetMode()) & os.ModePerm, ModeKnown: f.Mode != nil,
		ModTime: time.UnixMilli(f.GetLastModificationTimeMs()),
	}
	if f.LastModificationTimeMs == nil {
		i.ModTime = time.Time{}
	}
	if i.Dir {
		return i
	}
	if i.Size = f.GetLength(); f.Length == nil {
		// In a listing the numbers are missing where they cannot be.
		i.Size = cacheclient.UnknownSize
		return i
	}
	i.Version = layout{fileID: f.GetFileId(), blockSize: max(f.GetBlockSizeBytes(), 1), size: i.Size}.mark()
	return i
}

// span is a part of one block.
type span struct {
	// k is the block's number in the file, off the offset in it, n the length in bytes.
	k      int
	off, n int64
}

// spans cuts the range [off, off+n) of the file at the borders of blocks.
func (l layout) spans(off, n int64) []span {
	spans := make([]span, 0, 2)
	for n > 0 {
		k := off / l.blockSize
		in := off % l.blockSize
		part := min(n, l.blockSize-in)
		spans = append(spans, span{k: int(k), off: in, n: part})
		off, n = off+part, n-part
	}
	return spans
}

// underStore tells a worker where the k-th block is in its under store.
func (l layout) underStore(k int, f *wire.FileInfo) *rpc.UnderStore {
	under := l.all().UnderStore(k, f)
	return &under
}
