package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// AdminHandler answers /healthz, which says that the process serves, /readyz, which says that the source answers,
// /source, which has the verdict on it as JSON, and /metrics. None of them needs keys or tells a secret.
func (g *Gateway) AdminHandler() http.Handler {
	mux := http.NewServeMux()
	// A caller that gives up early says nothing about the source: what was begun for it is ended, and known to the
	// next.
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("ok\n"))
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		if err := g.Ready(context.WithoutCancel(r.Context())); err != nil {
			http.Error(w, "the source does not answer: "+err.Error(), http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write([]byte("ok\n"))
	})
	mux.HandleFunc("GET /source", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(g.Check(context.WithoutCancel(r.Context())))
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(g.metrics.registry, promhttp.HandlerOpts{}))
	return mux
}

// Ready reports whether the source answers. One that has too much to do answers, and would have no less to do without
// this gateway.
func (g *Gateway) Ready(ctx context.Context) error {
	if v := g.Check(ctx); v.State != Reached && !v.busy {
		return errors.New(v.Message)
	}
	return nil
}
