package agent

import (
	"context"
	"errors"
	"net"
	"os"
	"runtime/debug"
	"sync"
	"time"

	"millrace.io/millrace/fuse/handover"
	"millrace.io/millrace/fuse/socket"
)

const (
	// receiveTimeout is how long a holder may take to send its request.
	receiveTimeout = 5 * time.Second
	// acceptPause is how long to wait after an accept that failed.
	acceptPause = 100 * time.Millisecond
	// holderGrace is how long requests of holders may take to end when this process does.
	holderGrace = 2 * time.Second
	// attachTimeout bounds a request whose holder has gone.
	attachTimeout = 2 * time.Minute
)

// Serve answers a holder on l until ctx ends; then it leaves every mount to the next process, and returns. The
// connections on which a holder watches are closed last: a holder that sees its own break may be sure that
// nothing is served here any more.
func (s *Sessions) Serve(ctx context.Context, l net.Listener) error {
	var requests sync.WaitGroup
	var watching watchers
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	for {
		conn, err := l.Accept()
		if err != nil {
			if ctx.Err() == nil && !errors.Is(err, net.ErrClosed) {
				// Out of descriptors or memory for the moment: the sessions that are there go on.
				s.log.Warn("a holder could not be accepted", "error", err)
				time.Sleep(acceptPause)
				continue
			}
			break
		}
		u, ok := conn.(*net.UnixConn)
		if !ok || !socket.MayAsk(socket.Peer(conn)) {
			s.log.Warn("a connection of another user was refused")
			_ = conn.Close()
			continue
		}
		requests.Go(func() { s.converse(ctx, u, &watching) })
	}
	if !endsWithin(holderGrace, requests.Wait) {
		s.log.Warn("a holder's request does not end, and is left behind")
	}
	s.Close()
	watching.close()
	return nil
}

// endsWithin calls wait, and reports whether it returned in time. Its goroutine ends with what it waits for: a handler
// that hangs in a system call ends with the process at the latest, and must hold up no handover.
func endsWithin(grace time.Duration, wait func()) bool {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		wait()
	}()
	select {
	case <-ended:
		return true
	case <-time.After(grace):
		return false
	}
}

// watchers are the connections that wait for our end.
type watchers struct {
	// mu guards conns.
	mu    sync.Mutex
	conns map[net.Conn]bool
	// gone counts the goroutines that wait for the ends of holders.
	gone sync.WaitGroup
}

// add keeps a connection until its holder or this process ends.
func (w *watchers) add(c net.Conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.conns == nil {
		w.conns = make(map[net.Conn]bool)
	}
	w.conns[c] = true
	w.gone.Go(func() {
		_, _ = c.Read(make([]byte, 1))
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.conns, c)
		_ = c.Close()
	})
}

func (w *watchers) close() {
	w.mu.Lock()
	for c := range w.conns {
		_ = c.Close()
	}
	w.mu.Unlock()
	w.gone.Wait()
}

// converse answers the one request of a connection.
func (s *Sessions) converse(ctx context.Context, c *net.UnixConn, watching *watchers) {
	_ = c.SetDeadline(time.Now().Add(receiveTimeout))
	request, err := handover.Receive(c)
	if err != nil {
		s.log.Debug("a holder's request could not be read", "error", err)
		_ = handover.Refuse(c, handover.Errorf(handover.CodeInvalid, "%w", err))
		_ = c.Close()
		return
	}
	if request.Op == handover.OpWatch {
		handover.CloseAll(request.Files)
		_ = c.SetDeadline(time.Time{})
		watching.add(c)
		return
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(attachTimeout))
	ctx, cancel := context.WithTimeout(ctx, attachTimeout)
	defer cancel()
	reply, err := s.answerSafely(ctx, request)
	if err != nil {
		err = handover.Refuse(c, err)
	} else {
		err = handover.Answer(c, reply)
	}
	handover.CloseAll(reply.Files)
	if err != nil {
		s.log.Debug("a holder went before its answer", "op", string(request.Op), "error", err)
	}
}

// answerSafely makes a panic the answer to the request that met it.
func (s *Sessions) answerSafely(ctx context.Context, r handover.Request) (reply handover.Reply, err error) {
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("a holder's request failed by a panic", "op", string(r.Op), "panic", p, "stack",
				string(debug.Stack()))
			err = handover.Errorf(handover.CodeInternal, "the agent failed over the request %q", r.Op)
		}
	}()
	return s.answer(ctx, r)
}

// answer carries a request out. It takes the request's files; those of the reply are the caller's.
func (s *Sessions) answer(ctx context.Context, r handover.Request) (handover.Reply, error) {
	if r.Op == handover.OpAttach {
		return s.answerAttach(ctx, r)
	}
	handover.CloseAll(r.Files)
	switch r.Op {
	case handover.OpList:
		return handover.Reply{IDs: s.list()}, nil
	case handover.OpTake:
		return s.answerTake(r.ID)
	case handover.OpRenew:
		return handover.Reply{}, s.renew(ctx, r.Volume)
	case handover.OpDetach:
		return handover.Reply{}, s.detach(ctx, r.ID)
	case handover.OpLost:
		s.server.setLost(r.Lost)
		return handover.Reply{}, nil
	case handover.OpStats:
		stats, err := s.stats(r.ID)
		return handover.Reply{Stats: &stats}, err
	}
	return handover.Reply{}, handover.Errorf(handover.CodeInvalid, "the agent does not know the request %q", r.Op)
}

func (s *Sessions) answerAttach(ctx context.Context, r handover.Request) (handover.Reply, error) {
	if r.Volume == nil || len(r.Files) == 0 {
		handover.CloseAll(r.Files)
		return handover.Reply{}, handover.Errorf(handover.CodeInvalid, "attach needs a volume and a device")
	}
	var saved *os.File
	if len(r.Files) > 1 {
		saved = r.Files[1]
	}
	state, err := s.attach(ctx, *r.Volume, r.Files[0], saved)
	if err != nil {
		return handover.Reply{}, err
	}
	return handover.Reply{Files: []*os.File{state}}, nil
}

func (s *Sessions) answerTake(id string) (handover.Reply, error) {
	h, err := s.find(id)
	if err != nil {
		return handover.Reply{}, err
	}
	device, state, err := h.session.Handles()
	if err != nil {
		return handover.Reply{}, handover.Errorf(handover.CodeNotFound, "volume %s: %w", id, err)
	}
	volume := s.described(h)
	return handover.Reply{Volume: &volume, Files: []*os.File{device, state}}, nil
}
