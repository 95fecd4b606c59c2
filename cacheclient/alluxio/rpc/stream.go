package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// drainPatience is how long a stream that we have ended gets to end at the server by itself: a worker logs a
// cancelled one as a failure.
const drainPatience = 200 * time.Millisecond

// opening is the start of a stream that outlives the call that starts it.
type opening struct {
	endpoint *Endpoint
	call     context.Context
	// life is the stream's, and cancel ends it. Until settled, the end of the call does so, too.
	life   context.Context
	cancel context.CancelFunc
	stop   func() bool
}

func (w *Worker) opening(call context.Context) opening {
	life, cancel := context.WithCancel(context.WithoutCancel(call))
	return opening{endpoint: w.endpoint, call: call, life: life, cancel: cancel, stop: context.AfterFunc(call, cancel)}
}

// settled ends the start. The stream ends with it if there is an error, or the call has ended meanwhile.
func (o opening) settled(err error) error {
	if inTime := o.stop(); !inTime {
		err = fmt.Errorf("%s: %w", o.endpoint.addr, o.call.Err())
	}
	if err != nil {
		o.cancel()
	}
	return err
}

// stream is what all streams have that are under way. They embed it.
type stream struct {
	endpoint *Endpoint
	// session is the one that the stream was opened by, nil where the server wants none.
	session *session
	// cancel ends it at once, as a failure.
	cancel context.CancelFunc
}

func (o opening) stream() stream {
	return stream{endpoint: o.endpoint, session: sessionOf(o.call), cancel: o.cancel}
}

// Abort ends the stream at once, and drops what was being written. It may be called from another goroutine, and ends a
// call that waits. After the stream's end it does nothing.
func (s *stream) Abort() { s.cancel() }

// closeSend ends our side. A server that has forgotten us refuses that, and never tells its handler of the stream,
// which goes on holding its lock, or its half-written block: so to such a server the stream is cancelled.
func (s *stream) closeSend(closeSend func() error) error {
	if s.session.ended() {
		s.cancel()
		return s.forgotten()
	}
	return closeSend()
}

func (s *stream) forgotten() error {
	return &Unreachable{Addr: s.endpoint.addr, Why: "forgot the authentication in the middle of a call"}
}

// explain says what an error means that came in the middle of a stream: there, a server that does not know us has
// forgotten us, and one that ends it before we do is not done.
func (s *stream) explain(err error) error {
	switch {
	case errors.Is(err, io.EOF):
		return &Unreachable{Addr: s.endpoint.addr, Why: "ended the call early"}
	case status.Code(err) == codes.Unauthenticated:
		return s.forgotten()
	}
	return s.endpoint.explain(err)
}

// leave ends the stream politely, and in the background if the server takes a while for its own side.
func (s *stream) leave(closeSend func() error, receive func() error) {
	if s.closeSend(closeSend) != nil {
		s.cancel()
		return
	}
	go func() {
		defer s.cancel()
		patience := time.AfterFunc(drainPatience, s.cancel)
		defer patience.Stop()
		for err := error(nil); err == nil; {
			err = receive()
		}
	}()
}

// finish ends our side and waits for the server to have done what the stream was for.
func (s *stream) finish(ctx context.Context, closeSend func() error, receive func() error) error {
	defer s.cancel()
	defer context.AfterFunc(ctx, s.cancel)()
	err := s.closeSend(closeSend)
	for err == nil {
		err = receive()
	}
	switch {
	case errors.Is(err, io.EOF):
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("%s: %w", s.endpoint.addr, ctx.Err())
	}
	return s.explain(err)
}
