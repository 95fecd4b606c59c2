package rpc

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

const (
	// largestMessage is what we take in one message: a listing comes in batches of 10,000 files, which with long
	// names are more than gRPC's 4 MiB. Alluxio's own clients take as much.
	largestMessage = 100 << 20
	// keepaliveTime is the least that servers permit (alluxio.*.network.permit.keepalive.time): a connection
	// that pings more often is closed.
	keepaliveTime    = 40 * time.Second
	keepaliveTimeout = 20 * time.Second
	// longestRedial bounds the pause between attempts to connect. gRPC's own is two minutes, in which a failover
	// would be over and nobody know it.
	longestRedial = 500 * time.Millisecond
	// connectPatience bounds one attempt to connect, authenticatePatience the handshake that follows.
	connectPatience      = 2 * time.Second
	authenticatePatience = 5 * time.Second
	// idHeader carries the channel id in every call.
	idHeader = "channel-id"
)

// Endpoint is one server.
type Endpoint struct {
	addr     string
	security Security
	conn     *grpc.ClientConn

	// turn is held by who authenticates: others wait for the outcome.
	turn chan struct{}

	// mu guards the rest.
	mu sync.Mutex
	// session is the authentication in use, nil before the first and after its end.
	session *session
	// open says that the server wants no authentication.
	open   bool
	closed bool
}

// newEndpoint makes an endpoint without connecting.
func newEndpoint(addr string, s Security) (*Endpoint, error) {
	creds, err := s.credentials()
	if err != nil {
		return nil, err
	}
	conn, err := grpc.NewClient("passthrough:///"+addr,
		grpc.WithTransportCredentials(creds),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(largestMessage)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepaliveTime, Timeout: keepaliveTimeout}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.3, MaxDelay: longestRedial},
			MinConnectTimeout: connectPatience,
		}),
		// The pool's largest buffers hold a frame, and reading ahead of frames saves system calls.
		grpc.WithReadBufferSize(256<<10),
		grpc.WithUserAgent("millrace"), grpc.WithDisableServiceConfig(), grpc.WithDisableRetry(), grpc.WithIdleTimeout(0),
	)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", addr, err)
	}
	return &Endpoint{addr: addr, security: s, conn: conn, turn: make(chan struct{}, 1)}, nil
}

// Addr is host:port.
func (e *Endpoint) Addr() string { return e.addr }

// Do calls f with a context that carries our channel id, and once more with a new one if the server does not
// know the id any more.
func (e *Endpoint) Do(ctx context.Context, f func(ctx context.Context, conn *grpc.ClientConn) error) error {
	for again := false; ; again = true {
		s, err := e.authenticated(ctx)
		if err != nil {
			return err
		}
		err = f(s.outgoing(ctx), e.conn)
		if err == nil || again || status.Code(err) != codes.Unauthenticated {
			return err
		}
		e.forget(s)
	}
}

// authenticated returns the session in use, after making one if there is none.
func (e *Endpoint) authenticated(ctx context.Context) (*session, error) {
	if s, ok, err := e.current(); ok || err != nil {
		return s, err
	}
	select {
	case e.turn <- struct{}{}:
		defer func() { <-e.turn }()
	case <-ctx.Done():
		return nil, fmt.Errorf("%s: %w", e.addr, ctx.Err())
	}
	if s, ok, err := e.current(); ok || err != nil {
		return s, err
	}
	s, err := authenticate(ctx, e.conn, e.addr, e.security)
	unwanted := errors.Is(err, errNoAuthentication)
	if err != nil && !unwanted {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		s.end()
		return nil, errClosedEndpoint
	}
	e.session, e.open = s, unwanted
	return s, nil
}

var errClosedEndpoint = errors.New("the connection was closed")

// current is the session that can be used, nil with ok where the server wants none.
func (e *Endpoint) current() (s *session, ok bool, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.closed:
		return nil, false, errClosedEndpoint
	case e.open:
		return nil, true, nil
	case e.session != nil && !e.session.ended():
		return e.session, true, nil
	}
	return nil, false, nil
}

// forget ends a session that the server does not know any more.
func (e *Endpoint) forget(s *session) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.session == s {
		e.session = nil
		// A server that wanted no authentication may have been replaced by one that does.
		e.open = false
	}
	s.end()
}

// Close ends the authentication and the connection.
func (e *Endpoint) Close() {
	e.mu.Lock()
	s := e.session
	e.session, e.closed = nil, true
	e.mu.Unlock()
	s.end()
	_ = e.conn.Close()
}

// outgoing is ctx with the channel id.
func (s *session) outgoing(ctx context.Context) context.Context {
	if s == nil {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, idHeader, s.id)
}
