package controller_test

import (
	"errors"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"millrace.io/millrace/controller"
	"millrace.io/millrace/sanity/kube"
	"millrace.io/millrace/sanity/pace"
)

// killer lets so many writes through and then nothing any more, as if the process had been killed.
type killer struct {
	next http.RoundTripper

	// mu guards the rest.
	mu sync.Mutex
	// left is how many writes may pass.
	left int
	// wrote has a token after a write.
	wrote chan struct{}
	// dead is closed at the write after them.
	dead chan struct{}
}

var errKilled = errors.New("the test has killed this controller")

// RoundTrip implements http.RoundTripper.
func (k *killer) RoundTrip(r *http.Request) (*http.Response, error) {
	k.mu.Lock()
	if r.Method != http.MethodGet {
		k.left--
		select {
		case k.wrote <- struct{}{}:
		default:
		}
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

// TestKilledAtEachWrite kills a controller at every write of a Dataset's life, from its creation to its end. The next
// one finishes the work, and what there is then is always the same. The short form kills at some of them.
func TestKilledAtEachWrite(t *testing.T) {
	t.Parallel()
	s, c := server(t)
	step := 6
	if long() {
		step = 1
	}
	const lanes = 2
	for lane := range lanes {
		t.Run(strconv.Itoa(lane), func(t *testing.T) {
			t.Parallel()
			writes := lane * step
			for killedAt(t, s, c, writes) {
				writes += lanes * step
			}
			t.Logf("killed at each of %d writes", writes)
			if writes < len(made("")) {
				t.Errorf("only %d writes were seen, fewer than the %d objects", writes, len(made("")))
			}
		})
	}
}

// killedAt makes and deletes a Dataset, and both times kills the controller after so many writes. It reports whether
// there was one more to kill it at.
func killedAt(t *testing.T, s *kube.Server, c client.Client, writes int) bool {
	t.Helper()
	ns := namespace(t, c)
	specs := create(t, c, ns, walkthrough)
	creating := killed(t, s, ns, writes)
	next := start(t, s, ns, nil)
	complete(t, c, ns)
	must(t, next())
	for _, o := range specs {
		must(t, c.Delete(t.Context(), o))
	}
	deleting := killed(t, s, ns, writes)
	next = start(t, s, ns, nil)
	gone(t, c, ns)
	must(t, next())
	return creating || deleting
}

// killed runs a controller that is killed after so many writes, and reports whether it came to one more. It always has
// something to write, and is done when it has written nothing for a while since.
func killed(t *testing.T, s *kube.Server, ns string, writes int) bool {
	t.Helper()
	k := &killer{left: writes, wrote: make(chan struct{}, 1), dead: make(chan struct{})}
	stop := start(t, s, ns, func(config *controller.Config) {
		config.API.Wrap(func(next http.RoundTripper) http.RoundTripper {
			k.next = next
			return k
		})
	})
	quiet := patience
	for {
		select {
		case <-k.dead:
			must(t, stop())
			return true
		case <-k.wrote:
			quiet = pace.Limit(2 * time.Second)
		case <-time.After(quiet):
			must(t, stop())
			return false
		}
	}
}
