package embedded

import (
	"context"
	"errors"
	"io/fs"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/ufs"
)

const (
	// quickTimeout bounds a request to a source that did not answer the one before: whoever
	// asks next should not wait the whole time again.
	quickTimeout = 2 * time.Second
	// knownPatience is how long somebody who can go on with what is known waits to hear whether it still stands, and
	// slowPatience the same while another has waited that long in vain.
	knownPatience = 1500 * time.Millisecond
	slowPatience  = 50 * time.Millisecond
	// longestError bounds the sentence that is kept of an error, in bytes.
	longestError = 400
)

// health is what the last requests told about the source.
// D-024 says why.
type health struct {
	mu sync.Mutex
	// The rest is guarded by mu.

	// down says that the source did not answer the last time, and since when it has not.
	down  bool
	since time.Time
	// slow says that somebody went on with what was known, and the source has told nothing since; answers counts what it told.
	slow    bool
	answers uint64
	// last is the last error that says something about the source, and not about one path.
	last string
}

// isDown tells whether the source did not answer the last time.
func (h *health) isDown() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.down
}

// hearing tells whether the source is slow, and how much it has told so far.
func (h *health) hearing() (slow bool, answers uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.slow, h.answers
}

// hesitates notes that somebody went on without the source's word, unless it has told something since he began to wait: one long
// answer beside others says nothing of the source.
func (h *health) hesitates(answers uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.slow = h.slow || h.answers == answers
}

// answered notes that the source has told something.
func (h *health) answered() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.slow = false
	h.answers++
}

// noteError keeps what the error says, if it says something about the source.
func (h *health) noteError(err error) {
	for _, normal := range []error{fs.ErrNotExist, cacheclient.ErrStale, cacheclient.ErrNotDir, cacheclient.ErrIsDir, cacheclient.ErrClosed, context.Canceled} {
		if errors.Is(err, normal) {
			return
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.last = sentence(err)
}

// turn sets the state, and tells whether it was another.
func (h *health) turn(down bool) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.down == down {
		return false
	}
	h.down, h.since = down, time.Time{}
	if down {
		h.since = time.Now()
	}
	return true
}

// tell fills in the counters.
func (h *health) tell(n *cacheclient.Counters) {
	h.mu.Lock()
	defer h.mu.Unlock()
	n.SourceDown, n.SourceDownSince, n.LastSourceError = h.down, h.since, h.last
}

// sentence is the error in one line of bounded length.
func sentence(err error) string {
	s := strings.Join(strings.Fields(strings.ToValidUTF8(err.Error(), "\uFFFD")), " ")
	if len(s) <= longestError {
		return s
	}
	s = s[:longestError]
	for !utf8.ValidString(s) {
		s = s[:len(s)-1]
	}
	return s + "..."
}

// patience is how long to wait for the source, and whether a failure is worth another attempt.
func (c *Cache) patience() (time.Duration, bool) {
	if c.health.isDown() {
		return min(quickTimeout, c.cfg.Timeout), false
	}
	return c.cfg.Timeout, true
}

// orKnown asks the source what somebody knows already: its answer, or false where it does not answer at all or not soon. The question
// goes on without him then, but not more of them than there are connections.
func orKnown[T any](ctx context.Context, c *Cache, key string, ask func() (T, error)) (answer T, answered bool, err error) {
	patience := knownPatience
	slow, answers := c.health.hearing()
	if slow {
		patience = slowPatience
	}
	if slow && c.questions.Load() >= int64(c.cfg.Connections) {
		return answer, false, nil
	}
	wait, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	answer, err = once(wait, c, key, func() (T, error) {
		c.questions.Add(1)
		defer c.questions.Add(-1)
		return ask()
	})
	switch {
	case errors.Is(err, cacheclient.ErrUnavailable):
		return answer, false, nil
	case ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded):
		c.health.hesitates(answers)
		return answer, false, nil
	}
	return answer, true, err
}

func (c *Cache) sourceUp() {
	c.health.answered()
	if c.health.isDown() && c.health.turn(false) {
		c.log.Info("the source answers again", "source", c.store.String())
	}
}

func (c *Cache) sourceDown(err error) {
	c.health.noteError(err)
	if c.health.turn(true) {
		c.log.Warn("the source does not answer", "source", c.store.String(), "error", err)
	}
}

// settled is called with the error of a request that is not worth another attempt: either the source said
// something clearly, or it cannot be reached.
func (c *Cache) settled(err error) {
	var status *ufs.StatusError
	switch {
	case errors.Is(err, cacheclient.ErrUnavailable):
		c.sourceDown(err)
		return
	case errors.As(err, &status), errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission), errors.Is(err, cacheclient.ErrStale):
		c.sourceUp()
	}
	c.health.noteError(err)
}
