package embedded_test

import (
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/cachetest"
	"millrace.io/millrace/cacheclient/embedded"
	"millrace.io/millrace/cacheclient/ufs"
	"millrace.io/millrace/sanity/pace"
)

// TestConformance runs the suite over each kind of source, with a tier and with none.
func TestConformance(t *testing.T) {
	t.Setenv("CONFORMANCE_KEY", cachetest.S3Key)
	t.Setenv("CONFORMANCE_SECRET", cachetest.S3Secret)
	for name, serve := range map[string]serving{
		"local": func(_ *testing.T, dir string) (string, ufs.Options) { return dir, ufs.Options{} },
		"http": func(t *testing.T, dir string) (string, ufs.Options) {
			t.Helper()
			srv := httptest.NewServer(http.FileServer(http.Dir(dir)))
			t.Cleanup(srv.Close)
			return srv.URL + "/", ufs.Options{}
		},
		"s3": func(t *testing.T, dir string) (string, ufs.Options) {
			t.Helper()
			pace.Long(t)
			return "s3://" + filepath.Base(dir), ufs.Options{Values: map[string]string{
				"provider": "Rclone", "endpoint": cachetest.ServeS3(t, filepath.Dir(dir), "MD5", "0s"),
				"access_key_id": "env:CONFORMANCE_KEY", "secret_access_key": "env:CONFORMANCE_SECRET",
			}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Run("tier", func(t *testing.T) { conform(t, serve, true) })
			t.Run("no tier", func(t *testing.T) {
				pace.Long(t)
				conform(t, serve, false)
			})
		})
	}
}

// serving makes a directory a source for as long as the test runs.
type serving func(t *testing.T, dir string) (source string, opts ufs.Options)

func conform(t *testing.T, serve serving, tiered bool) {
	t.Helper()
	type served struct {
		source string
		opts   ufs.Options
	}
	sources := make(map[string]served)
	cachetest.Run(t, cachetest.Backend{Caches: tiered, New: func(t *testing.T, dir, cache string) cacheclient.Client {
		t.Helper()
		s, ok := sources[dir]
		if !ok {
			s.source, s.opts = serve(t, dir)
			sources[dir] = s
		}
		store, err := ufs.Open(t.Context(), s.source, s.opts)
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
