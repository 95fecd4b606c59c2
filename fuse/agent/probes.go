package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
)

// ServeProbes answers /healthz and /metrics, and nothing else, on l until ctx ends, and closes l. It is for those who cannot reach
// the socket, as a kubelet and Prometheus; what it tells is no secret, and it asks nobody who he is. It returns nil when ctx ended it.
func (s *Server) ServeProbes(ctx context.Context, l net.Listener) error {
	mux := http.NewServeMux()
	mux.Handle("GET "+pathMetrics, metricsHandler(s.list))
	mux.HandleFunc("GET "+pathHealth, func(w http.ResponseWriter, r *http.Request) {
		if err := s.healthHandler(w, r); err != nil {
			writeJSON(w, statusOf(err), ErrorAnswer{Error: err.Error()})
		}
	})
	srv := &http.Server{
		Handler: mux, ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout,
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("health and metrics on %s: %w", l.Addr(), err)
	}
	return nil
}
