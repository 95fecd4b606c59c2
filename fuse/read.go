package fuse

import (
	"context"
	"fmt"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"millrace.io/millrace/cacheclient"
)

// maxParts is the number of pieces that one writev(2) takes besides the header (IOV_MAX is
// 1024).
const maxParts = 1023

// serveRead answers READ with bytes lent by the client. The kernel takes a reply that is
// shorter than asked for the file's end and would cut the file there, so a reply has
// exactly the bytes that the file has in the range, or is an error.
func (w *worker) serveRead(h inHeader, msg []byte) {
	r, ok := parseRead(msg)
	if !ok {
		w.replyError(h, syscall.EINVAL)
		return
	}
	file, err := w.openFile(h)
	if err != nil {
		w.replyFailure(h, w.s.fs.nodes.pathOf(h.node), err)
		return
	}
	n := readLength(file.Info().Size, r)
	if n == 0 {
		w.replyError(h, 0)
		return
	}
	data, err := file.Read(w.call.ctx, int64(r.offset), n)
	if err == nil && data.Len() != n {
		err = fmt.Errorf("the cache lent %d bytes where the file has %d", data.Len(), n)
		data.Release()
	}
	if err != nil {
		w.replyFailure(h, file.Info().Path, err)
		return
	}
	defer data.Release()
	w.replyData(h, data, n)
}

// openFile is the file behind an open node. One that an earlier process had open may still be on its way, and is waited
// for as long as an operation on metadata may take.
func (w *worker) openFile(h inHeader) (cacheclient.File, error) {
	if file, err := w.s.fs.opens.ready(h.node); file != nil || err != nil {
		return file, err
	}
	ctx, cancel := context.WithTimeout(w.call.ctx, w.s.fs.timeout)
	defer cancel()
	return w.s.fs.opens.get(ctx, h.node)
}

// replyFailure answers with the errno of an error.
func (w *worker) replyFailure(h inHeader, path string, err error) {
	errno := syscall.Errno(w.s.fs.fail(h.op, path, err))
	if w.spurious(h, errno) {
		errno = syscall.EIO
	}
	w.replyError(h, errno)
}

// readLength is the number of bytes that a file of this size has in the range.
func readLength(size int64, r readRange) int {
	if size <= 0 || r.offset >= uint64(size) {
		return 0
	}
	return int(min(uint64(r.size), uint64(size)-r.offset))
}

// replyData sends the header and the lent bytes in one writev(2).
func (w *worker) replyData(h inHeader, data cacheclient.Data, n int) {
	parts := data.Parts
	if len(parts) > maxParts {
		parts = [][]byte{join(parts, n)}
	}
	putHeader(w.header[:], outHeaderSize+n, 0, h.unique)
	w.iov = append(append(w.iov[:0], w.header[:]), parts...)
	w.origin, w.reader = data.Origin, data.Reader
	if data.Origin != cacheclient.OriginWorker {
		// What came over the network lies in memory that was written a moment ago.
		populate(parts)
	}
	errno := w.s.dev.writev(w.iov)
	clear(w.iov)
	w.replied(h, outHeaderSize+n, 0, errno)
	if errno == 0 {
		w.s.counters.copyReads.Add(1)
		w.s.counters.copyBytes.Add(int64(n))
		w.s.outcomes.serve(data.Origin, n)
	}
}

// populate maps the pages of lent bytes, most of which are parts of a mapped file, in one go. Otherwise the
// kernel would do so page by page as it takes the reply, and end the request with EIO where that process is being
// killed meanwhile, see resident. It is a hint: kernels before 5.14 do not know it.
func populate(parts [][]byte) {
	for _, p := range parts {
		if len(p) == 0 {
			continue
		}
		// madvise(2) wants the start of a page.
		skew := uintptr(unsafe.Pointer(&p[0])) % uintptr(pageSize)
		_, _, _ = unix.Syscall(unix.SYS_MADVISE, uintptr(unsafe.Pointer(&p[0]))-skew, uintptr(len(p))+skew,
			unix.MADV_POPULATE_READ)
	}
}

// join copies the parts into one.
func join(parts [][]byte, n int) []byte {
	joined := make([]byte, 0, n)
	for _, p := range parts {
		joined = append(joined, p...)
	}
	return joined
}
