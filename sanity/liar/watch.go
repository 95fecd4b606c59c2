package liar

import (
	"sync"
	"time"
)

// watch times calls. A call over its limit is a fault while it still hangs.
type watch struct {
	judge *Judge
	limit time.Duration

	// mu guards the rest.
	mu   sync.Mutex
	last int           // the number of the last call
	open map[int]timed // calls that have not ended
}

// timed is a call that goes on.
type timed struct {
	call, path string
	begun      time.Time
}

func newWatch(j *Judge, limit time.Duration) *watch {
	return &watch{judge: j, limit: limit, open: map[int]timed{}}
}

// begin notes that a call begins, and returns what notes its end.
func (w *watch) begin(call, path string) (end func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.last++
	n := w.last
	w.open[n] = timed{call: call, path: path, begun: time.Now()}
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.open, n)
	}
}

// look finds calls that are over their limit, and reports whether there is one.
func (w *watch) look() (over bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.open {
		if took := time.Since(c.begun); took > w.limit {
			w.judge.Fault(RuleHang, c.path, "%s has taken %v, the limit is %v", c.call, took.Round(time.Millisecond),
				w.limit)
			over = true
		}
	}
	return over
}
