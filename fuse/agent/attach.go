package agent

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"time"

	"millrace.io/millrace/fuse/handover"
	"millrace.io/millrace/fuse/socket"
)

const (
	// receiveTimeout is how long a holder may take to send its request.
	receiveTimeout = 5 * time.Second
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
	var failure error
	for {
		conn, err := l.Accept()
		if err != nil {
			if ctx.Err() == nil && !errors.Is(err, net.ErrClosed) {
				failure = err
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
	requests.Wait()
	s.Close()
	watching.close()
	return failure
}

// watchers are the connections that wait for our end.
type watchers struct {
	// mu guards conns.
	mu    sync.Mutex
	conns []net.Conn
}

func (w *watchers) add(c net.Conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.conns = append(w.conns, c)
}

func (w *watchers) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.conns {
		_ = c.Close()
	}
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
	reply, err := s.answer(ctx, request)
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
	case handover.OpDetach:
		return handover.Reply{}, s.detach(ctx, r.ID)
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
	volume := h.volume
	return handover.Reply{Volume: &volume, Files: []*os.File{device, state}}, nil
}
