package faultproxy

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// dialLimit bounds the connection to the target.
const dialLimit = 10 * time.Second

// Faults is what a proxy does to bytes. The zero value passes them on as they come.
type Faults struct {
	// DelayUp and DelayDown are how much later bytes arrive, from the client to the target and back.
	DelayUp, DelayDown time.Duration
	// StallUp and StallDown deliver nothing that way, ends of connections included, which stay open: with both, the
	// proxy accepts and never answers. What was held back is delivered when the stall ends.
	StallUp, StallDown bool
	// Chunk is how many bytes are written at a time at most, 0 is no limit, and Pause how long to wait after each time.
	// Without a pause, a reader that is slower than the proxy gets several chunks at once.
	Chunk int
	Pause time.Duration
	// ResetAfter resets a connection when it has delivered so many bytes down since it began; 0 is never. Of the
	// last ones, what the client has not read yet is lost, as TCP has it.
	ResetAfter int64
}

// Stats are sums since the proxy started, but for Open.
type Stats struct {
	// Accepted and Open count connections; Open are those that have not ended.
	Accepted, Open int64
	// Up and Down are the bytes delivered to the target, and to clients.
	Up, Down int64
}

// Proxy passes connections on to one target.
type Proxy struct {
	address string
	target  string
	wait    sync.WaitGroup // all goroutines

	accepted, up, down atomic.Int64

	// mu guards the rest.
	mu       sync.Mutex
	faults   Faults
	changed  chan struct{} // closed when faults change
	listener net.Listener  // nil while refusing, and after Close
	links    map[*link]struct{}
	closed   bool
}

// Start listens on the address ("127.0.0.1:0" picks a port) and passes connections on to the target, a host:port.
func Start(ctx context.Context, address, target string) (*Proxy, error) {
	p := &Proxy{address: address, target: target, changed: make(chan struct{}), links: map[*link]struct{}{}}
	if err := p.Accept(ctx); err != nil {
		return nil, err
	}
	return p, nil
}

// Address is the host:port where the proxy listens, the same after Refuse and Accept.
func (p *Proxy) Address() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.address
}

// Target is where connections are passed on to.
func (p *Proxy) Target() string { return p.target }

// Set changes the faults, for the connections that there are and those that come.
func (p *Proxy) Set(f Faults) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults = f
	close(p.changed)
	p.changed = make(chan struct{})
}

// current are the faults, and what is closed when they change.
func (p *Proxy) current() (Faults, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.faults, p.changed
}

// Stats counts what has passed.
func (p *Proxy) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	return Stats{Accepted: p.accepted.Load(), Open: int64(len(p.links)), Up: p.up.Load(), Down: p.down.Load()}
}

// Refuse closes the port: connections are refused. Connections that there are go on.
func (p *Proxy) Refuse() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.listener != nil {
		_ = p.listener.Close()
		p.listener = nil
	}
}

// Accept opens the port again after Refuse. It does nothing where the port is open.
func (p *Proxy) Accept(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return fmt.Errorf("the proxy to %s is closed", p.target)
	}
	if p.listener != nil {
		return nil
	}
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", p.address)
	if err != nil {
		return fmt.Errorf("the proxy to %s: %w", p.target, err)
	}
	p.listener, p.address = listener, listener.Addr().String()
	p.wait.Go(func() { p.serve(listener) })
	return nil
}

// Reset ends all connections with a TCP reset on both sides, as if the hosts had crashed and come back.
func (p *Proxy) Reset() {
	p.mu.Lock()
	links := make([]*link, 0, len(p.links))
	for l := range p.links {
		links = append(links, l)
	}
	p.mu.Unlock()
	for _, l := range links {
		l.reset()
	}
}

// Close closes the port, resets all connections and waits for their ends. It may be called twice.
func (p *Proxy) Close() {
	p.Refuse()
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.Reset()
	p.wait.Wait()
}

// serve accepts until the listener is closed.
func (p *Proxy) serve(listener net.Listener) {
	for {
		client, err := listener.Accept()
		if err != nil {
			return
		}
		p.accepted.Add(1)
		l := newLink(p, client)
		if !p.add(l) {
			l.reset()
			return
		}
		p.wait.Go(func() {
			defer p.remove(l)
			l.run()
		})
	}
}

func (p *Proxy) add(l *link) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	p.links[l] = struct{}{}
	return true
}

func (p *Proxy) remove(l *link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.links, l)
}
