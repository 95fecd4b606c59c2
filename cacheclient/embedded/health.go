package embedded

import (
	"context"
	"errors"
	"io/fs"
	"net/http"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/ufs"
)

const (
	// quickTimeout bounds a request to a source that did not answer the one before: a caller
	// asks next should not wait the whole time again.
	quickTimeout = 2 * time.Second
	// knownPatience is how long a caller that can go on with what is known waits to hear whether it still stands, and
	// slowPatience the same while another has waited that long in vain.
	knownPatience = 1500 * time.Millisecond
	slowPatience  = 50 * time.Millisecond
	// longestError bounds the sentence that is kept of an error, in bytes.
	longestError = 400
	// maxTroubled is how many requests that the source could not serve are remembered.
	maxTroubled = 256
)

// health is what the last requests told about the source. Only its silence counts against it; what it says about a path
// counts against that path.
// D-024 and D-144 say why.
type health struct {
	// mu guards the rest.
	mu sync.Mutex
	// down says that the source did not answer the last time, and since when it has not.
	down  bool
	since time.Time
	// slow says that a caller went on with what was known, and the source has told nothing since; answers counts what it
	// told.
	slow    bool
	answers uint64
	// refused says that the source did not know the credentials, and has served nothing since.
	refused bool
	// last is the last error that says something about the source, and not about one path.
	last string
	// troubled are the requests ("read PATH") that the source answered and could not serve, the latest of them.
	troubled *simplelru.LRU[string, struct{}]
}

// isTroubled reports whether the source could not serve the request the last time.
func (h *health) isTroubled(what string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.troubled != nil && h.troubled.Contains(what)
}

// trouble notes whether the source could serve a request.
func (h *health) trouble(what string, is bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case !is && h.troubled != nil:
		h.troubled.Remove(what)
	case is:
		if h.troubled == nil {
			// It fails for a size below 1 only.
			h.troubled, _ = simplelru.NewLRU[string, struct{}](maxTroubled, nil)
		}
		h.troubled.Add(what, struct{}{})
	}
}

// isDown reports whether the source did not answer the last time.
func (h *health) isDown() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.down
}

// hearing reports whether the source is slow, and how much it has told so far.
func (h *health) hearing() (slow bool, answers uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.slow, h.answers
}

// hesitates notes that a caller went on without the source's word, unless it has told something since it began to wait:
// one long answer beside others says nothing of the source.
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
	for _, normal := range []error{
		fs.ErrNotExist, cacheclient.ErrStale, cacheclient.ErrNotDir, cacheclient.ErrIsDir,
		cacheclient.ErrClosed, context.Canceled,
	} {
		if errors.Is(err, normal) {
			return
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.last = sentence(err)
	h.refused = h.refused || ufs.RefusesCredentials(err)
}

// welcomed notes that the source has served a request: it knows the credentials.
func (h *health) welcomed() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.refused = false
}

// turn sets the state, and reports whether it was another.
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
	n.SourceRefuses = h.refused
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

// patience is how long to wait for the answer to a request, and whether a failure is worth another attempt. It is short
// while the source is down, and for a request that it could not serve the last time; others do not pay for that one.
func (c *Cache) patience(what string) (time.Duration, bool) {
	if c.health.isDown() || c.health.isTroubled(what) {
		return min(quickTimeout, c.cfg.Timeout), false
	}
	return c.cfg.Timeout, true
}

// isAnswer reports whether an error is the source's word about what was asked for, and not its silence.
func isAnswer(err error) bool {
	var status *ufs.StatusError
	if errors.As(err, &status) || ufs.Elsewhere(err) {
		return true
	}
	for _, word := range []error{
		fs.ErrNotExist, fs.ErrPermission, cacheclient.ErrStale, cacheclient.ErrNotDir, cacheclient.ErrIsDir,
		cacheclient.ErrTooLarge,
		errDenied,
	} {
		if errors.Is(err, word) {
			return true
		}
	}
	return false
}

// tellsNothing reports whether a question has no answer that says anything of what was asked about: the source did not
// answer, or does not accept the keys.
func tellsNothing(err error) bool {
	return errors.Is(err, cacheclient.ErrUnavailable) || ufs.RefusesCredentials(err)
}

// isGone reports whether an error says that the source does not have the version.
func isGone(err error) bool {
	return errors.Is(err, cacheclient.ErrStale) || errors.Is(err, fs.ErrNotExist)
}

// isDenial reports whether an answer to a request for content says, or means, that the version is not there.
func isDenial(err error) bool {
	var status *ufs.StatusError
	if errors.As(err, &status) && (status.Code == http.StatusPreconditionFailed ||
		status.Code == http.StatusRequestedRangeNotSatisfiable) {
		return true
	}
	return isGone(err)
}

// orKnown asks the source what is known already: its answer, or false where it tells nothing or not soon. The question
// goes on without the caller then, but not more of them than there are connections.
func orKnown[T any](ctx context.Context, c *Cache, key string, ask func() (T, error)) (
	answer T, answered bool, err error,
) {
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
	case tellsNothing(err):
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

// served notes that the source has served a request.
func (c *Cache) served(what string) {
	c.health.trouble(what, false)
	c.health.welcomed()
	c.sourceUp()
}

// failed notes that no attempt at a request was any good. Where the source said something, heard or by the error, that
// is the request's own trouble; only a source that says nothing is down.
func (c *Cache) failed(what string, err error, heard bool) {
	if !heard && !isAnswer(err) {
		c.sourceDown(err)
		return
	}
	c.health.trouble(what, true)
	c.sourceUp()
	c.health.noteError(err)
}

// settled is called with the error of a request that is not worth another attempt: either the source said
// something clearly, or it cannot be reached.
func (c *Cache) settled(err error) {
	switch {
	case isAnswer(err):
		c.sourceUp()
	case errors.Is(err, cacheclient.ErrUnavailable):
		c.sourceDown(err)
		return
	}
	c.health.noteError(err)
}
