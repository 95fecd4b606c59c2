package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/ufs"
)

const (
	// bufferSize is what is read from the source at once at most, in bytes.
	bufferSize = 256 << 10
	// stallTime is how long a client may take no bytes before its connection to the source is given back.
	stallTime = 5 * time.Second
	// clientTimeout is how long a client may take for one buffer before it is cut off.
	clientTimeout = 5 * time.Minute
	// deadlineStep is how much older than clientTimeout a deadline may be before it is set anew: setting one for each
	// buffer would cost as much as sending it.
	deadlineStep = 10 * time.Second
	// boundaryPause is how long a read without an end waits at the boundary of a block for its client to end it. What the
	// client has not read by then, at most some megabytes in buffers, it reads at 4 MB/s in this time: slower clients than
	// that were seen, on machines whose processors are all taken. A read pauses once, so a reader that goes on loses no
	// more.
	boundaryPause = 1500 * time.Millisecond
	// resumeBytes is how much must have come since the source last broke off for the attempts to be counted anew.
	resumeBytes = 1 << 20
)

// stream is a range of one version on its way from the source to a client. It is used by one goroutine, beside which a
// timer ends the source's body when the client takes nothing.
// D-066 says why.
type stream struct {
	gateway *Gateway
	ctx     context.Context //nolint:containedctx // of the request that this stream answers
	info    cacheclient.Info
	// at is the offset of the next byte for the client, end the one after the last.
	at, end int64
	// stop is the end of what the source is asked for: end, or the boundary of a block before it.
	stop int64
	// passed says that a boundary has been waited at.
	passed bool
	// partial says that the client asked for a range.
	partial bool
	// broken counts how often the source broke off since at was brokenAt.
	broken   int
	brokenAt int64

	// mu guards the rest.
	mu sync.Mutex
	// stall calls release, from sendTo until the stream has ended.
	stall *time.Timer
	ended bool
	// body is the source's, nil when there is none. The stream has a token of source.streams while it has a body.
	body *ufs.Body
	// whole says that the body began before the range, because the source has no ranges.
	whole bool
	// confirm asks the source whether what its body brought is the version's, nil where its answer proves that.
	confirm func(context.Context) error
	// reading says that the body is being read; since is when that last ended.
	reading bool
	since   time.Time
}

// bound has a read without an end stop at the next boundary of a block.
func (s *stream) bound(size int64) {
	s.stop = s.end
	if next := s.at - s.at%max(size, 1) + size; size > 0 && next < s.end {
		s.stop = next
	}
}

// pass waits at the first boundary, and goes on if the client is still there: to the end where the answers prove what
// they bring, else to the next boundary, at which a client may keep what it has. D-198 says why.
func (s *stream) pass() error {
	s.drop()
	if !s.passed {
		if err := sleep(s.ctx, boundaryPause); err != nil {
			return err
		}
	}
	if s.passed = true; s.confirmation() != nil {
		s.bound(s.gateway.cfg.BlockSize)
	} else {
		s.stop = s.end
	}
	return nil
}

// open asks the source for the range as far as stop.
func (s *stream) open() error {
	src := s.gateway.source
	if err := acquire(s.ctx, src.streams); err != nil {
		return err
	}
	kept := false
	defer func() {
		if !kept {
			<-src.streams
		}
	}()
	body, err := src.open(s.ctx, s.info, s.at, s.stop-s.at)
	if err != nil {
		return err
	}
	kept = true
	if s.passed && body.Confirm != nil {
		// The answers before were proof, and this one is none.
		s.bound(s.gateway.cfg.BlockSize)
	}
	s.receive(body)
	if err := s.skip(body, s.at-body.Start); err != nil {
		s.drop()
		return err
	}
	return nil
}

// receive keeps a body, whose token the stream has.
func (s *stream) receive(body *ufs.Body) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gateway.metrics.streams.Inc()
	s.body, s.whole, s.since = body, body.Start != s.at, time.Now()
	if body.Confirm != nil {
		s.confirm = body.Confirm
	}
}

// prove has the source say that what it brought is the version's, where its answers do not: before the last bytes are
// sent, without which the client has nothing.
func (s *stream) prove() error {
	confirm := s.confirmation()
	if confirm == nil {
		return nil
	}
	src := s.gateway.source
	ctx, cancel := cacheclient.Patient(s.ctx, src.timeout)
	defer cancel()
	return src.try(ctx, "stat", confirm)
}

func (s *stream) confirmation() func(context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.confirm
}

// skip reads and forgets.
func (s *stream) skip(body io.Reader, n int64) error {
	buffer := s.gateway.buffer()
	defer s.gateway.buffers.Put(buffer)
	for n > 0 {
		read, err := body.Read((*buffer)[:min(n, bufferSize)])
		s.gateway.metrics.received.Add(float64(read))
		n -= int64(read)
		if err != nil && n > 0 {
			return fmt.Errorf("before the range: %w", noEnd(err))
		}
	}
	return nil
}

// drop ends the source's body, if there is one.
func (s *stream) drop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dropLocked()
}

// dropLocked is drop where mu is held.
func (s *stream) dropLocked() {
	if s.body == nil {
		return
	}
	_ = s.body.Close()
	s.body = nil
	s.gateway.metrics.streams.Dec()
	<-s.gateway.source.streams
}

// close ends the stream.
func (s *stream) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	if s.stall != nil {
		s.stall.Stop()
	}
	s.dropLocked()
}

// watch begins to look after clients that take nothing.
func (s *stream) watch() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stall = time.AfterFunc(stallTime, s.release)
}

// sendTo sends the range. Its error means that the client does not have all of it.
func (s *stream) sendTo(w http.ResponseWriter) error {
	if s.at == s.end {
		return nil
	}
	buffer := s.gateway.buffer()
	defer s.gateway.buffers.Put(buffer)
	s.watch()
	client := &patient{w: w, control: http.NewResponseController(w)}
	for s.at < s.end {
		if s.at == s.stop {
			if err := s.pass(); err != nil {
				return err
			}
		}
		n, err := s.read((*buffer)[:min(s.stop-s.at, bufferSize)])
		if n > 0 {
			if err := s.forward(client, (*buffer)[:n]); err != nil {
				return err
			}
		}
		if err == nil || s.at == s.stop {
			continue
		}
		if err := s.resume(err); err != nil {
			return err
		}
	}
	return nil
}

// forward sends what the source has brought.
func (s *stream) forward(client *patient, p []byte) error {
	if s.at+int64(len(p)) == s.stop {
		if err := s.prove(); err != nil {
			return err
		}
	}
	if _, err := client.Write(p); err != nil {
		return fmt.Errorf("the client: %w", err)
	}
	s.gateway.metrics.sent.Add(float64(len(p)))
	s.at += int64(len(p))
	return nil
}

// patient writes to a client that may take clientTimeout for each buffer.
type patient struct {
	w        http.ResponseWriter
	control  *http.ResponseController
	deadline time.Time
}

// Write implements io.Writer.
func (c *patient) Write(p []byte) (int, error) {
	if now := time.Now(); c.deadline.Sub(now) < clientTimeout-deadlineStep {
		c.deadline = now.Add(clientTimeout)
		_ = c.control.SetWriteDeadline(c.deadline)
	}
	return c.w.Write(p) //nolint:gosec // An object's bytes.
}

// read reads some of the body, after asking for it again where the timer ended it.
func (s *stream) read(p []byte) (int, error) {
	body := s.begin()
	if body == nil {
		return 0, s.open()
	}
	n, err := body.Read(p)
	s.gateway.metrics.received.Add(float64(n))
	s.paused()
	return n, noEnd(err)
}

// begin is the body, which is being read from then on, and paused notes that it is not any more.
func (s *stream) begin() *ufs.Body {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reading = s.body != nil
	return s.body
}

func (s *stream) paused() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reading, s.since = false, time.Now()
}

// noEnd makes an end of the source's body, before the end of the range, an error that is worth another attempt.
func noEnd(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// resume deals with a source that broke off: the rest of the same version is asked for again, a few times.
func (s *stream) resume(err error) error {
	s.drop()
	if again, _ := ufs.Retryable(err); !again || s.ctx.Err() != nil {
		return err
	}
	if s.at-s.brokenAt >= resumeBytes {
		s.broken = 0
	}
	s.brokenAt = s.at
	if s.broken++; s.broken >= attempts {
		return err
	}
	s.gateway.metrics.resumed.Inc()
	s.gateway.log.Debug("the source broke off and is asked for the rest", "path", s.info.Path, "offset", s.at, "error",
		err)
	// The first attempt is made at once: the connection may only have been an old one.
	return s.open()
}

// release ends the source's body when the client has taken nothing for a while, and looks again later. A body whose
// beginning would be sent again stays.
func (s *stream) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return
	}
	idle := time.Since(s.since)
	if s.reading || s.body == nil {
		idle = 0
	}
	if idle >= stallTime && !s.whole {
		s.dropLocked()
		s.gateway.metrics.released.Inc()
	}
	if idle >= stallTime {
		idle = 0
	}
	s.stall.Reset(stallTime - idle)
}

// buffer takes a buffer, which is given back to buffers.
func (g *Gateway) buffer() *[]byte {
	if b, ok := g.buffers.Get().(*[]byte); ok {
		return b
	}
	b := make([]byte, bufferSize)
	return &b
}
