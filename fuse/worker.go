package fuse

import (
	"context"
	"errors"
	"os"
	"sync"
	"syscall"
	"time"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/fuse/mountpoint"
)

// WaitingThreads is how many threads of a session wait in read(2) at the most. Each may keep one of Go's
// processors (GOMAXPROCS) for up to 10 ms before the runtime takes it back, and meanwhile no goroutine
// looks at the network: a process that serves one session wants so many processors more.
// D-029 says why.
const WaitingThreads = 4

const (
	// requestSize has room for any request, in bytes: the kernel demands 8192 and what
	// max_write needs more, and sends nothing longer to a read-only file system.
	requestSize = 16 << 10
	// startWorkers wait for requests from the start.
	startWorkers = 2
	// idleWorkers is the number of waiting workers beyond which one ends.
	idleWorkers = WaitingThreads
)

// worker serves one request at a time.
type worker struct {
	s   *Session
	buf []byte
	// header and iov are the reply to a READ, small the one to most others.
	header [outHeaderSize]byte
	iov    [][]byte
	small  [fixedReplySize]byte

	// slot is the record of what this worker serves, 0 where the state has no room.
	slot record

	// start is when the present request was read, and call what may interrupt it, nil where it does not wait.
	start time.Time
	call  *call
	// suspect is the present request where it was in service when a process died; leaveLane then lets the next one in.
	suspect   *suspect
	leaveLane func()
	// answered reports whether the present request has had its reply.
	answered bool
	// origin is which source served the last READ that had bytes, and reader which of the backend's readers.
	origin cacheclient.Origin
	reader string
}

// pageSize is the kernel's, in bytes.
var pageSize = os.Getpagesize()

// largeReplies keeps buffers for listings, as *[]byte.
var largeReplies sync.Pool

// startWorker adds a worker.
func (s *Session) startWorker() {
	s.workers.Add(1)
	go func() {
		defer s.workers.Done()
		w := &worker{s: s, buf: resident(requestSize), slot: s.state.saveRequest(&suspect{}, recordServing)}
		defer s.state.release(w.slot)
		w.run()
	}()
}

// resident is a buffer whose pages are there. The kernel ends a request with EIO where it cannot copy it
// to the reader, and that is so for a page which is not there when the process is being killed (get_user_pages
// gives up where a fatal signal is pending): the application would see an error in place of a pause.
func resident(size int) []byte {
	buf := make([]byte, size)
	for i := 0; i < size; i += pageSize {
		buf[i] = 0
	}
	return buf
}

// run serves requests until the session ends or enough others wait.
func (w *worker) run() {
	s := w.s
	for {
		if s.idle.Add(1) > idleWorkers {
			s.idle.Add(-1)
			return
		}
		n, err := s.dev.read(w.buf)
		left := s.idle.Add(-1)
		if err != nil || n == 0 {
			s.deviceEnded(err)
			return
		}
		if left == 0 {
			s.startWorker()
		}
		w.serve(w.buf[:n])
	}
}

// serve answers one request.
func (w *worker) serve(msg []byte) {
	h, ok := parseHeader(msg)
	if !ok {
		w.s.log.Error("a request from the kernel has a wrong length", "bytes", len(msg))
		return
	}
	w.begin(h)
	defer w.end(h)
	defer func() {
		if r := recover(); r != nil {
			w.s.fs.panicked(r)
			if !w.answered {
				w.replyError(h, syscall.EIO)
			}
		}
	}()
	if w.admit(h, msg) {
		w.dispatch(h, msg)
	}
}

// begin notes that a request was read.
func (w *worker) begin(h inHeader) {
	w.start, w.answered = time.Now(), false
	if mayWait(h.op) {
		w.call = w.s.inflight.begin(h)
	}
}

// end notes that a request needs the worker no more.
func (w *worker) end(h inHeader) {
	w.dismiss()
	if w.call != nil {
		w.s.inflight.end(w.call, h.unique)
		w.call = nil
	}
}

// context is that of the present request.
func (w *worker) context() context.Context {
	if w.call != nil {
		return w.call.ctx
	}
	return w.s.inflight.base
}

// dispatch has the request served by what is there for its kind.
func (w *worker) dispatch(h inHeader, msg []byte) {
	switch {
	case h.op == opRead:
		w.serveRead(h, msg)
	case h.op == opInterrupt:
		w.serveInterrupt(h, msg)
	case h.op == opFlush:
		// There is nothing to flush. ProtocolServer would accept it for the file of refusePoll, and
		// the kernel go on asking.
		w.replyError(h, syscall.ENOSYS)
	case h.op == opPoll:
		// The kernel never asks again. It is what mountpoint.Settle waits for.
		w.s.state.settle()
		w.replyError(h, syscall.ENOSYS)
	case h.op == opLookup && h.node == rootID && w.s.state.settled() && parseName(msg) == mountpoint.PollName:
		w.replyError(h, syscall.ENOENT)
	case h.op == opInit:
		w.serveInit(h)
	default:
		w.serveProtocol(h, msg)
	}
}

// spurious reports whether a request failed as if its caller had interrupted it, and that did not: the client gave it
// up for reasons of its own, which are no reason for EINTR.
func (w *worker) spurious(h inHeader, errno syscall.Errno) bool {
	if errno != syscall.EINTR || w.call == nil || w.s.inflight.gaveUp(w.call) || w.s.inflight.base.Err() != nil {
		return false
	}
	w.s.fs.faults.report(opName(h.op), "", errGivenUp)
	return true
}

// errGivenUp is a request that the client ended as if it had been interrupted.
var errGivenUp = errors.New("the cache gave the request up, and its caller did not")

// serveInterrupt notes that the caller of the request that INTERRUPT names was interrupted. One that is not known may
// be on its way through another worker: EAGAIN has the kernel ask again while it is unanswered.
func (w *worker) serveInterrupt(h inHeader, msg []byte) {
	target, ok := parseInterrupt(msg)
	if ok && !w.s.inflight.interrupt(target) {
		w.replyError(h, syscall.EAGAIN)
		return
	}
	w.count(h, 0)
}

// serveInit answers an INIT that the kernel sent to a process which died over it.
func (w *worker) serveInit(h inHeader) {
	reply, err := w.s.negotiate(pagesLimit())
	if err != nil {
		w.s.log.Error("INIT came again and cannot be answered", "error", err)
		w.replyError(h, syscall.EIO)
		return
	}
	putHeader(reply, len(reply), 0, h.unique)
	w.replied(h, len(reply), 0, w.s.dev.write(reply))
}

// serveProtocol has go-fuse decode the request and call the file system.
func (w *worker) serveProtocol(h inHeader, msg []byte) {
	reply := w.small[:]
	if room := replyRoom(h.op, msg); room > len(reply) {
		if room > fixedReplySize+maxReply() {
			w.replyError(h, syscall.EINVAL)
			return
		}
		large, ok := largeReplies.Get().(*[]byte)
		if !ok || cap(*large) < room {
			fresh := make([]byte, room)
			large = &fresh
		}
		defer largeReplies.Put(large)
		reply = (*large)[:room]
	}
	n, status := w.s.protocol.HandleRequest([][]byte{msg}, [][]byte{reply})
	switch {
	case n > 0 && w.spurious(h, replyErrno(reply)):
		w.replyError(h, syscall.EIO)
	case n > 0:
		w.reply(h, reply[:n])
	case status != gofuse.OK:
		w.s.log.Warn("a request could not be decoded", "op", opName(h.op), "bytes", len(msg), "status", status.String())
		w.replyError(h, syscall.EIO)
	default:
		w.count(h, 0)
	}
}

// reply sends a whole reply, and takes back what it gave if the kernel did not take it.
func (w *worker) reply(h inHeader, reply []byte) {
	if replyErrno(reply) == 0 {
		switch h.op {
		case opOpen:
			w.s.fs.opens.answering(openHandle(reply))
		case opOpenDir:
			w.s.fs.dirs.answering(openHandle(reply))
		}
	}
	if w.replied(h, len(reply), replyErrno(reply), w.s.dev.write(reply)) {
		return
	}
	if errno := replyErrno(reply); errno != 0 {
		return
	}
	switch h.op {
	case opOpen:
		w.s.fs.releaseHandle(openHandle(reply))
	case opOpenDir:
		w.s.fs.dirs.release(openHandle(reply))
	case opLookup:
		w.s.fs.Forget(entryNode(reply), 1)
	}
}

// replyError sends a reply without a body; errno may be 0.
func (w *worker) replyError(h inHeader, errno syscall.Errno) {
	putHeader(w.header[:], outHeaderSize, errno, h.unique)
	w.replied(h, outHeaderSize, errno, w.s.dev.write(w.header[:]))
}

// replied counts a reply and reports whether the kernel took it. One that it did not take for a
// reason other than that no caller waits for it any more (ENOENT) is replaced by an error, so
// that the application does not wait for ever.
func (w *worker) replied(h inHeader, size int, errno, failure syscall.Errno) bool {
	w.answered = true
	if failure == 0 {
		w.s.counters.bytesReplied.Add(int64(size))
	} else if failure != unix.ENOENT && failure != unix.ENODEV {
		w.s.log.Warn("the kernel refused a reply", "op", opName(h.op), "error", failure)
		putHeader(w.header[:], outHeaderSize, syscall.EIO, h.unique)
		_ = w.s.dev.write(w.header[:])
		errno = syscall.EIO
	}
	w.count(h, errno)
	return failure == 0
}

// count notes the end of a request.
func (w *worker) count(h inHeader, errno syscall.Errno) {
	took := time.Since(w.start)
	w.s.counters.done(h.op, took, errno)
	if errno != 0 {
		w.s.outcomes.fail(errno)
	}
	if w.s.tracer.wants(took) {
		w.traced(h, errno, took)
	}
}
