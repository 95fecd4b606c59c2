package fuse

import (
	"sync/atomic"
	"syscall"
	"time"

	"millrace.io/millrace/cacheclient"
)

// StallTime is how long a request waits before it counts as stalled: longer than a source that is well takes, shorter
// than most people wait.
const StallTime = 5 * time.Second

// origins are what the bytes of READs are counted by.
var origins = [...]cacheclient.Origin{
	cacheclient.OriginCache, cacheclient.OriginStaging, cacheclient.OriginWorker, cacheclient.OriginSource,
}

// errnos are the errors that are counted one by one; the others are counted together.
var errnos = [...]struct {
	errno syscall.Errno
	name  string
}{
	{syscall.ENOENT, "ENOENT"},
	{syscall.EIO, "EIO"},
	{syscall.EINTR, "EINTR"},
	{syscall.ESTALE, "ESTALE"},
	{syscall.EACCES, "EACCES"},
	{syscall.EROFS, "EROFS"},
	{syscall.ENOSYS, "ENOSYS"},
	{syscall.ENOTDIR, "ENOTDIR"},
	{syscall.EISDIR, "EISDIR"},
	{syscall.EFBIG, "EFBIG"},
	{syscall.EAGAIN, "EAGAIN"},
	{syscall.EINVAL, "EINVAL"},
}

// otherErrno is the name under which all other errors are counted.
const otherErrno = "other"

// outcomes count what requests came to. All is atomic.
type outcomes struct {
	served [len(origins)]atomic.Int64
	failed [len(errnos) + 1]atomic.Int64
}

// serve counts the bytes of a READ.
func (o *outcomes) serve(from cacheclient.Origin, n int) {
	for i, known := range origins {
		if from == known {
			o.served[i].Add(int64(n))
		}
	}
}

// fail counts an error.
func (o *outcomes) fail(errno syscall.Errno) {
	for i, known := range errnos {
		if errno == known.errno {
			o.failed[i].Add(1)
			return
		}
	}
	o.failed[len(errnos)].Add(1)
}

// snapshot gives the counts by name. Each origin and errno has one from the start.
func (o *outcomes) snapshot() (served, failed map[string]int64) {
	served, failed = make(map[string]int64, len(o.served)), make(map[string]int64, len(o.failed))
	for i, from := range origins {
		served[string(from)] = o.served[i].Load()
	}
	for i, known := range errnos {
		failed[known.name] = o.failed[i].Load()
	}
	failed[otherErrno] = o.failed[len(errnos)].Load()
	return served, failed
}

// stalled is the number of requests in here that have waited for longer than StallTime.
func (f *inflight) stalled() int {
	now, n := time.Now(), 0
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.calls {
		if now.Sub(c.start) > StallTime {
			n++
		}
	}
	return n
}
