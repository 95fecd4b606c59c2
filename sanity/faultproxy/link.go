package faultproxy

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// readSize is the most that a pipe reads at once, and queueLength how many such pieces it holds.
	readSize    = 64 << 10
	queueLength = 1024
)

// link is a client's connection, and the one to the target that belongs to it.
type link struct {
	proxy *Proxy
	ended context.Context // ends with the link
	end   context.CancelFunc

	// mu guards conns.
	mu    sync.Mutex
	conns []net.Conn // the client's, then the target's
	over  bool       // reset
}

func newLink(p *Proxy, client net.Conn) *link {
	ctx, cancel := context.WithCancel(context.Background())
	return &link{proxy: p, ended: ctx, end: cancel, conns: []net.Conn{client}}
}

// run connects to the target, and passes bytes on until both sides have ended.
func (l *link) run() {
	defer l.end()
	dialer := net.Dialer{Timeout: dialLimit}
	target, err := dialer.DialContext(l.ended, "tcp", l.proxy.target)
	if err != nil {
		// The nearest to being refused that can be had after accepting.
		l.reset()
		return
	}
	client, alive := l.add(target)
	if !alive {
		return
	}
	var pipes sync.WaitGroup
	up := pipe{link: l, from: client, to: target, count: &l.proxy.up}
	down := pipe{link: l, from: target, to: client, count: &l.proxy.down, down: true}
	for _, p := range []*pipe{&up, &down} {
		queue := make(chan piece, queueLength)
		pipes.Go(func() { p.read(queue) })
		pipes.Go(func() { p.deliver(queue) })
	}
	pipes.Wait()
	for _, c := range []net.Conn{client, target} {
		_ = c.Close()
	}
}

// add has the target's connection belong to the link. It is not alive when it was reset meanwhile.
func (l *link) add(target net.Conn) (client net.Conn, alive bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conns = append(l.conns, target)
	if l.over {
		reset(target)
	}
	return l.conns[0], !l.over
}

// reset ends both connections with a TCP reset.
func (l *link) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.over = true
	l.end()
	for _, c := range l.conns {
		reset(c)
	}
}

func reset(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = c.Close()
}

// piece is what arrived at once. Without bytes it is the end: a regular one, or an error.
type piece struct {
	bytes   []byte
	arrived time.Time
	err     error
}

// pipe is one direction of a link.
type pipe struct {
	link      *link
	from, to  net.Conn
	count     *atomic.Int64
	down      bool
	delivered int64 // of this pipe alone
}

// read queues what arrives, until its end.
func (p *pipe) read(queue chan<- piece) {
	defer close(queue)
	for {
		buffer := make([]byte, readSize)
		n, err := p.from.Read(buffer)
		now := time.Now()
		pieces := []piece{{bytes: buffer[:n], arrived: now}}
		if n == 0 {
			pieces = nil
		}
		if err != nil {
			pieces = append(pieces, piece{arrived: now, err: err})
		}
		for _, next := range pieces {
			select {
			case queue <- next:
			case <-p.link.ended.Done():
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// deliver hands over what is queued when it is due, and the end as the end that it was.
func (p *pipe) deliver(queue <-chan piece) {
	for next := range queue {
		for rest := next.bytes; len(rest) > 0 || next.err != nil; {
			faults, alive := p.due(next.arrived)
			if !alive {
				return
			}
			if next.err != nil {
				p.finish(next.err)
				return
			}
			n, last := p.share(len(rest), faults)
			written, err := p.to.Write(rest[:n])
			p.count.Add(int64(written))
			p.delivered += int64(written)
			if err != nil || last {
				p.link.reset()
				return
			}
			rest = rest[n:]
			if !p.pause(faults.Pause) {
				return
			}
		}
	}
}

// pause waits, and reports whether the link has not ended meanwhile.
func (p *pipe) pause(d time.Duration) bool {
	if d <= 0 {
		return true
	}
	select {
	case <-time.After(d):
		return true
	case <-p.link.ended.Done():
		return false
	}
}

// due waits until what arrived then is due, and returns the faults at that moment. It is not alive when the link has
// ended.
func (p *pipe) due(arrived time.Time) (faults Faults, alive bool) {
	for {
		faults, changed := p.link.proxy.current()
		delay, stall := faults.DelayUp, faults.StallUp
		if p.down {
			delay, stall = faults.DelayDown, faults.StallDown
		}
		left := delay
		if delay > 0 {
			left = time.Until(arrived.Add(delay))
		}
		if !stall && left <= 0 {
			return faults, p.link.ended.Err() == nil
		}
		var due <-chan time.Time
		if !stall {
			due = time.After(left)
		}
		select {
		case <-due:
		case <-changed:
		case <-p.link.ended.Done():
			return Faults{}, false
		}
	}
}

// share is how many of n bytes are delivered at once, and whether they are the connection's last ones.
func (p *pipe) share(n int, faults Faults) (now int, last bool) {
	if faults.Chunk > 0 {
		n = min(n, faults.Chunk)
	}
	if p.down && faults.ResetAfter > 0 {
		left := max(0, faults.ResetAfter-p.delivered)
		if int64(n) >= left {
			return int(left), true
		}
	}
	return n, false
}

// finish passes an end on: a regular one ends this direction only, an error resets both connections.
func (p *pipe) finish(err error) {
	if tcp, ok := p.to.(*net.TCPConn); ok && errors.Is(err, io.EOF) {
		_ = tcp.CloseWrite()
		return
	}
	p.link.reset()
}
