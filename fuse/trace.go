package fuse

import (
	"context"
	"encoding/binary"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"
)

// SourcePassthrough is the Source of an open after which the kernel reads the local file by itself: the reads
// that follow are not seen.
const SourcePassthrough = "passthrough"

// Event is one request of the kernel that was answered.
type Event struct {
	// Time is when the request was read, Took how long the answer took, the writing of it included.
	Time time.Time
	Took time.Duration
	// Mount is the mount point, Op the kind of request, one of Ops.
	Mount, Op string
	// Path is the file or directory as the machine sees it, "" where the request is about none, or about one
	// that the kernel has forgotten meanwhile.
	Path string
	// Offset and Bytes are the range that a READ was answered with, in bytes.
	Offset, Bytes int64
	// Errno is the answer's error, 0 for none.
	Errno syscall.Errno
	// Source is which source served it: a cacheclient.Origin for a READ, SourcePassthrough for an open, "" for all
	// others and where it is not known.
	Source string
	// Reader is which of the backend's readers served a READ, "" where the backend has one alone.
	Reader string
	// Dropped is how many events were lost between the one before and this one, because the listener was too slow.
	Dropped int64
}

// Ops are the kinds of requests, in order of their names.
func Ops() []string {
	return slices.Sorted(maps.Values(opNames))
}

// tracer tells listeners about requests as they end, and remembers the slowest. Without a listener, a request that
// was fast costs one atomic load.
type tracer struct {
	// listening is the number of listeners.
	listening atomic.Int32
	slow      slowest

	// mu guards listeners, and what is in them.
	mu        sync.Mutex
	listeners map[*listener]struct{}
}

// listener is one subscription.
type listener struct {
	keep    func(Event) bool
	into    chan<- Event
	dropped int64
}

// Trace sends requests into the channel as they end, from now on until ctx ends. Only what keep accepts is sent; it is
// called by the worker that serves the request, and must be fast. What finds the channel full is lost, and holds
// nothing up. Several sessions may share a channel, which is never closed.
func (s *Session) Trace(ctx context.Context, keep func(Event) bool, into chan<- Event) {
	l := &listener{keep: keep, into: into}
	s.tracer.add(l)
	context.AfterFunc(ctx, func() { s.tracer.remove(l) })
}

// Slowest are the requests of the last minute that took longest, the slowest first. Those that took less than a
// millisecond are not among them.
func (s *Session) Slowest() []Event { return s.tracer.slow.list(time.Now()) }

func (t *tracer) add(l *listener) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.listeners == nil {
		t.listeners = make(map[*listener]struct{})
	}
	t.listeners[l] = struct{}{}
	t.listening.Add(1)
}

func (t *tracer) remove(l *listener) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.listeners, l)
	t.listening.Add(-1)
}

// wants reports whether anybody wants to know of a request that took so long.
func (t *tracer) wants(took time.Duration) bool {
	return took >= slowFloor || t.listening.Load() > 0
}

// tell gives the event to every listener that wants it.
func (t *tracer) tell(e Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for l := range t.listeners {
		if !l.keep(e) {
			continue
		}
		e.Dropped = l.dropped
		select {
		case l.into <- e:
			l.dropped = 0
		default:
			l.dropped++
		}
	}
}

// traced notes the present request, for listeners.
func (w *worker) traced(h inHeader, errno syscall.Errno, took time.Duration) {
	t := &w.s.tracer
	slow, heard := t.slow.enters(w.start, took), t.listening.Load() > 0
	if !slow && !heard {
		return
	}
	e := w.event(h, errno, took)
	if slow {
		t.slow.add(e)
	}
	if heard {
		t.tell(e)
	}
}

// event describes the present request, whose message is still in the worker's buffer, and whose reply, where it is a
// small one, is in small.
func (w *worker) event(h inHeader, errno syscall.Errno, took time.Duration) Event {
	e := Event{Time: w.start, Took: took, Mount: w.s.dir, Op: opName(h.op), Errno: errno}
	msg := w.buf[:min(int(binary.LittleEndian.Uint32(w.buf)), len(w.buf))]
	n := w.s.fs.nodes.get(h.node)
	if n == nil {
		return e
	}
	e.Path = w.pathOf(h, msg)
	switch {
	case h.op == opLookup:
		if errno == 0 && entryNode(w.small[:]) == 0 {
			// The absence of a name is told as an entry without a node, so that the kernel remembers it.
			e.Errno = syscall.ENOENT
		}
	case h.op == opRead:
		if r, ok := parseRead(msg); ok {
			e.Offset = int64(r.offset)
			if errno == 0 {
				e.Bytes = int64(readLength(n.size, r))
			}
		}
		if e.Bytes > 0 {
			e.Source, e.Reader = string(w.origin), w.reader
		}
	case h.op == opOpen && errno == 0 && openFlags(w.small[:])&gofuse.FOPEN_PASSTHROUGH != 0:
		e.Source = SourcePassthrough
	}
	return e
}

// pathOf is the file or directory that a request is about, as the machine sees it.
func (w *worker) pathOf(h inHeader, msg []byte) string {
	n := w.s.fs.nodes.get(h.node)
	if n == nil {
		return ""
	}
	path := n.path()
	if h.op == opLookup {
		path = n.child(parseName(msg))
	}
	if path == "" {
		return w.s.dir
	}
	return w.s.dir + "/" + path
}

// openFlags are the flags in the reply to an OPEN (struct fuse_open_out).
func openFlags(reply []byte) uint32 {
	return binary.LittleEndian.Uint32(reply[outHeaderSize+8:])
}
