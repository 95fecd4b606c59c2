package alluxio

import (
	"strings"
	"testing"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/cachetest"
)

// TestConformance runs the suite against a real cluster: files of one block and of many, read from the tiers of this
// machine and over the network, brought from the source by this process and by workers.
func TestConformance(t *testing.T) {
	for _, leg := range []struct {
		name      string
		blockSize int64
		change    func(*Config)
	}{
		{"one block", 64 << 20, func(*Config) {}},
		{"many blocks", 1 << 20, func(*Config) {}},
		{"remote", 1 << 20, func(c *Config) { c.NoShortCircuit = true }},
		{"workers read", 1 << 20, func(c *Config) { c.NoShortCircuit, c.WorkersRead = true, true }},
	} {
		t.Run(leg.name, func(t *testing.T) {
			c := shared.Get(t)
			paths := make(map[string]string)
			cachetest.Run(t, cachetest.Backend{
				// Alluxio passes over names with a question mark, which it takes for the beginning of a query.
				Omits:  func(path string) bool { return strings.Contains(path, "?") },
				Caches: true, Split: leg.blockSize < 64<<20, Whole: leg.blockSize >= 64<<20,
				New: func(t *testing.T, dir, _ string) cacheclient.Client {
					t.Helper()
					if paths[dir] == "" {
						paths[dir] = mountDir(t, c, dir, leg.blockSize)
					}
					cfg := config(t, c, paths[dir])
					cfg.TTL, cfg.NameTTL = -1, -1
					leg.change(&cfg)
					client, err := New(t.Context(), cfg)
					if err != nil {
						t.Fatal(err)
					}
					return client
				},
			})
		})
	}
}
