package controller_test

import (
	"errors"
	"net/http"
	"sync"
	"testing"
	"time"

	"millrace.io/millrace/controller"
)

// killer lets so many writes through and then nothing any more, as if the process had been killed.
type killer struct {
	next http.RoundTripper

	mu sync.Mutex // guards what follows
	// left is how many writes may pass.
	left int
	// dead is closed at the write after them.
	dead chan struct{}
}

var errKilled = errors.New("the test has killed this controller")

// RoundTrip implements http.RoundTripper.
func (k *killer) RoundTrip(r *http.Request) (*http.Response, error) {
	k.mu.Lock()
	if r.Method != http.MethodGet {
		k.left--
	}
	if k.left == -1 && r.Method != http.MethodGet {
		close(k.dead)
	}
	dead := k.left < 0
	k.mu.Unlock()
	if dead {
		return nil, errKilled
	}
	return k.next.RoundTrip(r)
}

// TestKilledAtEachWrite kills a controller at every write of a Dataset's life, from its creation to its end. The next one finishes
// the work, and what there is then is always the same. The short form kills at some of them.
func TestKilledAtEachWrite(t *testing.T) {
	s, c := server(t)
	kill := func(ns string, writes int) (*killer, func() error) {
		k := &killer{left: writes, dead: make(chan struct{})}
		stop := start(t, s, ns, func(config *controller.Config) {
			config.API.Wrap(func(next http.RoundTripper) http.RoundTripper {
				k.next = next
				return k
			})
		})
		return k, stop
	}
	died := func(k *killer, stop func() error) bool {
		select {
		case <-k.dead:
			must(t, stop())
			return true
		case <-time.After(3 * time.Second):
			must(t, stop())
			return false
		}
	}
	step := 6
	if long() {
		step = 1
	}
	for writes := 0; ; writes += step {
		ns := namespace(t, c)
		specs := create(t, c, ns, walkthrough)
		k, stop := kill(ns, writes)
		killedCreating := died(k, stop)
		next := start(t, s, ns, nil)
		complete(t, c, ns)
		must(t, next())
		for _, o := range specs {
			must(t, c.Delete(t.Context(), o))
		}
		k, stop = kill(ns, writes)
		killedDeleting := died(k, stop)
		next = start(t, s, ns, nil)
		gone(t, c, ns)
		must(t, next())
		if !killedCreating && !killedDeleting {
			t.Logf("killed at each of %d writes", writes)
			if writes < len(made(ns)) {
				t.Errorf("only %d writes were seen, fewer than the %d objects", writes, len(made(ns)))
			}
			return
		}
	}
}
