package gateway_test

import (
	"testing"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/cachetest"
	"millrace.io/millrace/cacheclient/embedded"
	"millrace.io/millrace/cacheclient/gateway"
	"millrace.io/millrace/cacheclient/ufs"
	"millrace.io/millrace/sanity/pace"
	"millrace.io/millrace/sanity/serve"
)

// TestConformance runs the suite of all backends with the embedded cache over s3://, which is a gateway over a web
// server and over a directory: names, attributes, ranges, changes and restarts come through as they are.
func TestConformance(t *testing.T) {
	for name, source := range map[string]func(t *testing.T, dir string) string{
		"http": func(t *testing.T, dir string) string {
			t.Helper()
			pace.Long(t)
			_, address := httpSource(t, dir, serve.Options{})
			return "http://" + address + "/"
		},
		"directory": func(_ *testing.T, dir string) string { return dir },
	} {
		t.Run(name, func(t *testing.T) { conform(t, source) })
	}
}

// conform keeps one gateway for each directory of the suite.
func conform(t *testing.T, source func(t *testing.T, dir string) string) {
	t.Helper()
	gateways := map[string]*running{}
	cachetest.Run(t, cachetest.Backend{Caches: true, New: func(t *testing.T, dir, cache string) cacheclient.Client {
		t.Helper()
		r, ok := gateways[dir]
		if !ok {
			r = start(t, open(t, source(t, dir)), func(c *gateway.Config) { c.Revalidate = -1 })
			gateways[dir] = r
		}
		store, err := ufs.Open(t.Context(), "s3://data", ufs.Options{
			Values:  map[string]string{"endpoint": r.endpoint},
			Secrets: map[string]string{"access_key_id": r.keys.AccessKeyID, "secret_access_key": r.keys.SecretAccessKey},
		})
		if err != nil {
			t.Fatal(err)
		}
		c, err := embedded.New(store, embedded.Config{
			Levels: []embedded.LevelConfig{{Dir: cache, Quota: 1 << 30, High: 0.95, Low: 0.7}}, TTL: -1,
		})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}})
}
