package alluxio

import (
	"sync"
	"time"
)

// maxRecent bounds what is remembered of things done lately.
const maxRecent = 16 << 10

// recently remembers what was done lately, so that it is not done again at once.
type recently struct {
	// mu guards until, when each may be done again.
	mu    sync.Mutex
	until map[int64]time.Time
}

// first reports whether the thing was not done within the pause, and notes that it is being done.
func (r *recently) first(id int64, pause time.Duration) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	if now.Before(r.until[id]) {
		return false
	}
	if r.until == nil || len(r.until) >= maxRecent {
		r.until = make(map[int64]time.Time)
	}
	r.until[id] = now.Add(pause)
	return true
}

// forget has the thing be done again at once.
func (r *recently) forget(id int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.until, id)
}

// left is how much of its pause is left.
func (r *recently) left(id int64) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return time.Until(r.until[id])
}

// was reports whether the thing was done within its pause.
func (r *recently) was(id int64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return time.Now().Before(r.until[id])
}
