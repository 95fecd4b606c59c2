package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"golang.org/x/net/netutil"
)

const (
	// maxConnections is how many connections of clients are open at a time; others wait to be accepted.
	maxConnections = 512
	// adminConnections is the same for health and metrics.
	adminConnections = 32
	// headTimeout is how long a request's head may take.
	headTimeout = 15 * time.Second
	// bodyTimeout is how long a request's body may take that was not asked for. Nothing of it is used.
	bodyTimeout = 5 * time.Second
	// idleTimeout is how long a connection may be without a request. Alluxio's S3 client keeps idle ones for a minute.
	idleTimeout = 90 * time.Second
	// maxHead bounds a request's head, in bytes.
	maxHead = 64 << 10
	// sendBuffer is what the kernel holds for a client, in bytes. More of it would only be read from the source and thrown
	// away when a client ends a read early, as Alluxio does at the end of each block.
	sendBuffer = 512 << 10
	// farewell is how long responses may go on when the gateway ends.
	farewell = 5 * time.Second
)

// Serve answers S3 requests on one listener and health and metrics on another, which may be nil, until the context
// ends; then responses may go on for a few seconds. It closes both, and asks the source nothing any more when it
// returns. An error says that a listener broke.
func (g *Gateway) Serve(ctx context.Context, s3, admin net.Listener) error {
	failed := make(chan error, 2)
	servers := []*http.Server{g.start(failed, netutil.LimitListener(sized{s3}, maxConnections), g)}
	if admin != nil {
		servers = append(servers, g.start(failed, netutil.LimitListener(admin, adminConnections), g.AdminHandler()))
	}
	var err error
	running := len(servers)
	select {
	case err = <-failed:
		running--
	case <-ctx.Done():
	}
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), farewell)
	defer cancel()
	for _, server := range servers {
		if server.Shutdown(ending) != nil {
			_ = server.Close()
		}
	}
	for range running {
		err = errors.Join(err, <-failed)
	}
	g.windows.rest()
	return err
}

// start serves until the server is shut down, and tells how that ended.
func (g *Gateway) start(failed chan<- error, l net.Listener, handler http.Handler) *http.Server {
	server := &http.Server{
		Handler: handler, ReadHeaderTimeout: headTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHead,
		ErrorLog: slog.NewLogLogger(g.log.Handler(), slog.LevelDebug),
	}
	go func() {
		err := server.Serve(l)
		if errors.Is(err, http.ErrServerClosed) {
			err = nil
		} else {
			err = fmt.Errorf("the listener on %s: %w", l.Addr(), err)
		}
		failed <- err
	}()
	return server
}

// sized is a listener whose connections have a small send buffer.
type sized struct{ net.Listener }

// Accept sets the buffer of what it accepts.
func (l sized) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	if tcp, ok := conn.(interface{ SetWriteBuffer(n int) error }); ok {
		// Without it all works, with a little more traffic.
		_ = tcp.SetWriteBuffer(sendBuffer)
	}
	return conn, nil
}
