package keeping

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

// Patience is how long a keeper that was asked to end stays for what no other process has.
const Patience = 20 * time.Second

const (
	// askTime bounds a request and its answer.
	askTime = 5 * time.Second
	// mostConns bounds the connections at a time.
	mostConns = 64
	// acceptPause is how long to wait after an accept that failed, and lookPause between two looks at whether to end.
	acceptPause = 100 * time.Millisecond
	lookPause   = 50 * time.Millisecond
)

// Serve answers on l until ctx has ended and others have what is kept, or patience is over. Then all that is kept is
// closed.
func (k *Keeper) Serve(ctx context.Context, l net.Listener, patience time.Duration) error {
	open := connections{conns: make(map[net.Conn]bool)}
	room := make(chan struct{}, mostConns)
	var talking, ending sync.WaitGroup
	over := make(chan struct{})
	ending.Go(func() {
		select {
		case <-ctx.Done():
			k.awaitEnd(patience)
		case <-over:
		}
		_ = l.Close()
		open.close()
	})
	for {
		room <- struct{}{}
		conn, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			break
		}
		if err != nil {
			<-room
			k.log.Warn("a connection could not be accepted", "error", err)
			time.Sleep(acceptPause)
			continue
		}
		u, ok := conn.(*net.UnixConn)
		if !ok || !socket.MayAsk(socket.Peer(conn)) || !open.add(conn) {
			k.log.Warn("a connection was refused")
			_ = conn.Close()
			<-room
			continue
		}
		talking.Go(func() {
			defer func() { <-room }()
			defer open.remove(conn)
			k.converse(u)
		})
	}
	close(over)
	ending.Wait()
	talking.Wait()
	k.closeAll()
	return nil
}

// awaitEnd returns when this process may end.
func (k *Keeper) awaitEnd(patience time.Duration) {
	deadline := time.Now().Add(patience)
	for !k.end() {
		if time.Now().After(deadline) {
			k.log.Warn("nobody has taken what is kept, and it is given up", "volumes", len(k.list()))
			return
		}
		time.Sleep(lookPause)
	}
}

// connections are those that are open.
type connections struct {
	// mu guards the rest.
	mu     sync.Mutex
	conns  map[net.Conn]bool
	closed bool
}

// add reports whether the connection may be used.
func (c *connections) add(conn net.Conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.conns[conn] = true
	}
	return !c.closed
}

func (c *connections) remove(conn net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.conns, conn)
	_ = conn.Close()
}

func (c *connections) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for conn := range c.conns {
		_ = conn.Close()
	}
}

// converse answers the one request of a connection.
func (k *Keeper) converse(c *net.UnixConn) {
	_ = c.SetDeadline(time.Now().Add(askTime))
	var r request
	files, err := handover.ReceiveMessage(c, version, &r)
	if err == nil && r.Op == opWatch {
		handover.CloseAll(files)
		gone := k.watched()
		defer gone()
		if handover.SendMessage(c, version, reply{}, nil) == nil {
			_ = c.SetDeadline(time.Time{})
			_, _ = c.Read(make([]byte, 1))
		}
		return
	}
	var answer reply
	var given []*os.File
	if err == nil {
		answer, given, err = k.answer(r, files)
	}
	if err != nil {
		answer = reply{Code: handover.CodeOf(err), Error: err.Error()}
	}
	if err := handover.SendMessage(c, version, answer, given); err != nil {
		k.log.Debug("a driver went before its answer", "op", r.Op, "error", err)
	}
	handover.CloseAll(given)
}

// answer carries a request out. It takes the files; those that it returns are the caller's.
func (k *Keeper) answer(r request, files []*os.File) (reply, []*os.File, error) {
	if r.Op == opPut {
		return reply{}, nil, k.put(r, files)
	}
	handover.CloseAll(files)
	switch r.Op {
	case opGet:
		return k.get(r)
	case opDrop:
		k.drop(r)
		return reply{}, nil, nil
	case opList:
		return reply{Kept: k.list()}, nil, nil
	case opLeave:
		return reply{}, nil, k.leave()
	}
	return reply{}, nil, handover.Errorf(handover.CodeInvalid, "the keeper does not know the request %q", r.Op)
}
