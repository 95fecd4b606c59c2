package gateway

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"millrace.io/millrace/cacheclient"
)

// readyLife is how long an answer of the source shows that it answers. It bounds what probes ask of the source.
const readyLife = 5 * time.Second

// readiness remembers what a probe found out.
type readiness struct {
	mu sync.Mutex // held by who asks the source, and guards what follows
	at time.Time
	// err is what the source said at that time.
	err error
}

// AdminHandler answers /healthz, which says that the process serves, /readyz, which says that the source answers, and
// /metrics. None of them needs keys or tells a secret.
func (g *Gateway) AdminHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("ok\n"))
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		if err := g.Ready(r.Context()); err != nil {
			http.Error(w, "the source does not answer: "+err.Error(), http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write([]byte("ok\n"))
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(g.metrics.registry, promhttp.HandlerOpts{}))
	return mux
}

// Ready reports whether the source answers, by what it answered last or by the beginning of its root.
func (g *Gateway) Ready(ctx context.Context) error {
	if time.Since(time.Unix(0, g.source.answered.Load())) < readyLife {
		return nil
	}
	g.ready.mu.Lock()
	defer g.ready.mu.Unlock()
	if time.Since(g.ready.at) < readyLife {
		return g.ready.err
	}
	// A probe that gives up early says nothing about the source.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), g.cfg.Timeout)
	defer cancel()
	err := g.source.store.List(ctx, "", func(cacheclient.Info) error { return errEnough })
	g.source.note("list", err)
	if errors.Is(err, errEnough) || isBusy(err) {
		// One that has too much to do answers, and would have no less to do without this gateway.
		err = nil
	}
	g.ready.at, g.ready.err = time.Now(), err
	return err
}
