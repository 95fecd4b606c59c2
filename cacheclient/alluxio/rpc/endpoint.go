package rpc

import (
	"context"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/experimental"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
)

const (
	// largestOfWorker is the same for workers, which send chunks of 2 MiB at the most: what a stream receives ahead
	// is bounded by whole messages.
	largestOfWorker = 8 << 20
	// keepaliveTime is how long a connection with calls may be silent before it is pinged. Servers close one that pings
	// more often than alluxio.{master,worker}.network.permit.keepalive.time, 30 s by default.
	keepaliveTime    = 40 * time.Second
	keepaliveTimeout = 20 * time.Second
	// redialPause is between attempts to connect, while calls fail at once with the failure of the last. gRPC's own grows
	// to two minutes, in which a failover would be over and nobody know it.
	redialPause = 500 * time.Millisecond
	// connectPatience bounds one attempt to connect.
	connectPatience = 2 * time.Second
	// idleAfter is how long a connection without calls is kept. The stream of a session is a call: what is closed are
	// connections to standby masters, which may be dead ends by the time of the next failover, and
	// attempts to connect to servers that are gone.
	idleAfter = 20 * time.Second
	// mostHandshakes is how often one call authenticates anew before it is taken for refused.
	mostHandshakes = 3
)

// Endpoint is one server: a connection, and an authentication that is made when it is needed.
type Endpoint struct {
	addr string
	who  identity

	// life ends with Close, and with it the handshakes and sessions, whose goroutines work counts.
	life context.Context
	end  context.CancelFunc
	work sync.WaitGroup

	// most is the largest message that is taken, in bytes.
	most int

	// mu guards the rest.
	mu sync.Mutex
	// conn is nil before the first call: a server that is only named costs nothing.
	conn *grpc.ClientConn
	// session is the authentication made last, nil before the first.
	session *session
	// open says that the server wants no authentication.
	open bool
	// handshake is the one under way, nil when there is none.
	handshake *handshake
	closed    bool
	// why is what calls get after Close.
	why error
}

// newEndpoint makes an endpoint without connecting, which takes messages of so many bytes at the most.
func newEndpoint(addr string, who identity, most int) *Endpoint {
	e := &Endpoint{addr: addr, who: who, most: most, why: errReleased}
	e.life, e.end = context.WithCancel(context.Background())
	return e
}

// dial makes a connection, which connects with the first call.
func dial(addr string, who identity, most int) (*grpc.ClientConn, error) {
	// Each attempt to connect looks the name up: a server may come back at another address.
	conn, err := grpc.NewClient("passthrough:///"+addr,
		grpc.WithTransportCredentials(who.transport),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(most), grpc.ForceCodecV2(newRationingCodec())),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepaliveTime, Timeout: keepaliveTimeout}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{
				BaseDelay: redialPause, Multiplier: 1, Jitter: 0.3,
				MaxDelay: redialPause,
			},
			MinConnectTimeout: connectPatience,
		}),
		grpc.WithIdleTimeout(idleAfter),
		// A proxy of the environment is for the web; servers of a cluster are near.
		grpc.WithNoProxy(),
		// Reading many frames at once saves system calls.
		grpc.WithReadBufferSize(256<<10),
		experimental.WithBufferPool(&received),
		grpc.WithUserAgent("millrace"), grpc.WithDisableServiceConfig(), grpc.WithDisableRetry(),
	)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", addr, err)
	}
	return conn, nil
}

// connection is the connection in use, which its first user makes.
func (e *Endpoint) connection() (*grpc.ClientConn, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.connected()
}

// connected is connection with mu held.
func (e *Endpoint) connected() (*grpc.ClientConn, error) {
	if e.closed {
		return nil, e.why
	}
	if e.conn == nil {
		conn, err := dial(e.addr, e.who, e.most)
		if err != nil {
			return nil, err
		}
		e.conn = conn
	}
	return e.conn, nil
}

// redialled is the connection in use, or a new one where the last attempt to connect has failed: gRPC tells of that
// failure until it has made another attempt.
func (e *Endpoint) redialled() (*grpc.ClientConn, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	conn, err := e.connected()
	if err != nil || conn.GetState() != connectivity.TransientFailure {
		return conn, err
	}
	if conn, err = dial(e.addr, e.who, e.most); err != nil {
		return nil, err
	}
	_ = e.conn.Close()
	e.conn = conn
	return conn, nil
}

// Addr is host:port.
func (e *Endpoint) Addr() string { return e.addr }

// Do calls f with a context that carries our channel id, and again with a new one if the server does not know the
// id any more: what a server refuses for that reason it has not carried out. An error of f is returned as it is.
func (e *Endpoint) Do(ctx context.Context, f func(ctx context.Context, conn *grpc.ClientConn) error) error {
	for try := 1; ; try++ {
		s, err := e.authenticated(ctx)
		if err != nil {
			return err
		}
		conn, err := e.connection()
		if err != nil {
			return err
		}
		err = f(s.outgoing(ctx), conn)
		if try == mostHandshakes || status.Code(err) != codes.Unauthenticated {
			return err
		}
		e.forget(s)
	}
}

// explain says what an error of a call to the server means.
func (e *Endpoint) explain(err error) error {
	if err != nil && e.life.Err() != nil {
		return e.over()
	}
	return explain(e.addr, err)
}

// over is what calls get after Close.
func (e *Endpoint) over() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.why
}

// authenticated returns the session in use, after making one if there is none; nil where the server wants none. Callers
// share a handshake, and its failure.
func (e *Endpoint) authenticated(ctx context.Context) (*session, error) {
	s, h, err := e.sessionOrHandshake()
	if h == nil {
		return s, err
	}
	select {
	case <-h.done:
		return h.session, h.err
	case <-ctx.Done():
		return nil, fmt.Errorf("%s: %w", e.addr, ctx.Err())
	}
}

// sessionOrHandshake is the session in use, or the handshake that is under way, which is begun where there is none;
// neither where the server wants no session.
func (e *Endpoint) sessionOrHandshake() (*session, *handshake, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.closed:
		return nil, nil, e.why
	case e.open:
		return nil, nil, nil
	case e.session != nil && !e.session.ended():
		return e.session, nil, nil
	}
	if e.handshake == nil {
		e.handshake = &handshake{done: make(chan struct{})}
		h := e.handshake
		e.work.Add(1)
		go e.authenticate(h)
	}
	return nil, e.handshake, nil
}

// forget ends a session that the server does not know any more. With nil it forgets that the server wanted none: it may
// have been replaced by one that does.
func (e *Endpoint) forget(s *session) {
	if s != nil {
		s.end()
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.open = false
}

// Close ends the authentication, the connection, and all calls. It returns when nothing of them runs any more.
func (e *Endpoint) Close() { e.leave(errReleased) }

// leave is Close, after which calls get the reason.
func (e *Endpoint) leave(why error) {
	if conn := e.shut(why); conn != nil {
		_ = conn.Close()
	}
	e.work.Wait()
}

// shut has no call begin any more, ends the sessions, and returns the connection, nil where there is none.
func (e *Endpoint) shut(why error) *grpc.ClientConn {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.closed {
		e.closed, e.why = true, why
	}
	e.end()
	return e.conn
}

// closeAll closes endpoints side by side: the farewell to a server that hangs takes a while.
func closeAll(endpoints []*Endpoint) {
	var closing sync.WaitGroup
	for _, e := range endpoints {
		closing.Go(e.Close)
	}
	closing.Wait()
}
