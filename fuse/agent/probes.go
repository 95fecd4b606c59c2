package agent

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
	// probeTimeout bounds an answer, which is short.
	probeTimeout = 10 * time.Second
	// probeConns bounds the probes at a time: they share descriptors and memory with the mounts.
	probeConns = 64
)

// ServeProbes answers /healthz, /metrics and /v1/lost, and nothing else, on l until ctx ends, and closes l. It is for
// what cannot reach the socket, as a kubelet, Prometheus and the controller; what it tells is no secret, and each may
// ask. It returns nil when ctx ended it.
func (s *Server) ServeProbes(ctx context.Context, l net.Listener) error {
	mux := http.NewServeMux()
	mux.Handle("GET "+pathMetrics, metricsHandler(s.list))
	mux.HandleFunc("GET "+pathHealth, func(w http.ResponseWriter, r *http.Request) { _ = s.healthHandler(w, r) })
	mux.HandleFunc("GET "+pathLost, func(w http.ResponseWriter, r *http.Request) { _ = s.lostHandler(w, r) })
	srv := &http.Server{
		Handler: mux, ReadTimeout: headerTimeout, WriteTimeout: probeTimeout, IdleTimeout: idleTimeout,
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	if err := srv.Serve(netutil.LimitListener(l, probeConns)); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("health and metrics on %s: %w", l.Addr(), err)
	}
	return nil
}
