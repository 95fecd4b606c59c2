package liar

import (
	"sync"
	"testing"
	"time"
)

// shortSeeds are what `make test` runs: each kind of source with themes that do not overlap.
var shortSeeds = []Seed{0, 1, 2, 3, 4, 5, 6, 7, 8}

// TestShortStorm runs a fixed set of seeds for a second each; `make storm` runs new ones for ten minutes.
func TestShortStorm(t *testing.T) {
	needsMount(t)
	seeds := make(chan Seed)
	var all sync.WaitGroup
	for range 2 {
		all.Go(func() {
			for seed := range seeds {
				p := Draw(seed)
				p.Length = time.Second
				report, err := Run(t.Context(), bin, p)
				if err != nil {
					t.Errorf("seed %d: %v", seed, err)
				}
				for _, f := range report.Faults {
					t.Errorf("seed %d (%s): %v\nmake storm SEED=%d", seed, p, f, seed)
				}
				t.Logf("seed %d (%s): %d calls, %d refused, %v", seed, p, report.Calls, report.Refused,
					report.Took.Round(time.Millisecond))
			}
		})
	}
	for _, seed := range shortSeeds {
		seeds <- seed
	}
	close(seeds)
	all.Wait()
}
