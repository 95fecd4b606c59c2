package embedded_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/cachetest"
	"millrace.io/millrace/cacheclient/embedded"
	"millrace.io/millrace/cacheclient/ufs"
)

// TestConformance runs the suite over each kind of source, with a tier and with none.
func TestConformance(t *testing.T) {
	for name, serve := range map[string]func(t *testing.T, dir string) string{
		"local": func(_ *testing.T, dir string) string { return dir },
		"http": func(t *testing.T, dir string) string {
			t.Helper()
			srv := httptest.NewServer(http.FileServer(http.Dir(dir)))
			t.Cleanup(srv.Close)
			return srv.URL + "/"
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Run("tier", func(t *testing.T) { conform(t, serve, true) })
			t.Run("no tier", func(t *testing.T) { conform(t, serve, false) })
		})
	}
}

func conform(t *testing.T, serve func(*testing.T, string) string, tiered bool) {
	t.Helper()
	sources := make(map[string]string)
	cachetest.Run(t, cachetest.Backend{Caches: tiered, New: func(t *testing.T, dir, cache string) cacheclient.Client {
		t.Helper()
		if sources[dir] == "" {
			sources[dir] = serve(t, dir)
		}
		store, err := ufs.Open(t.Context(), sources[dir], ufs.Options{})
		if err != nil {
			t.Fatal(err)
		}
		cfg := embedded.Config{TTL: -1}
		if tiered {
			cfg.Levels = tier(cache, 1<<30)
		}
		c, err := embedded.New(store, cfg)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}})
}
