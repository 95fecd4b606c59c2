package embedded

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"millrace.io/millrace/cacheclient"
)

// leastRate is how many bytes a second a body brings that keeps others waiting.
const leastRate = 16 << 10

// mostDoublings bounds how often the share of a fetch doubles.
const mostDoublings = 8

// errPreempted ends an attempt whose body drips while others wait for a connection.
var errPreempted = errors.New("it came slowly, and others wait for a connection")

// slots are the requests for content that may run at once. A fetch that waits for one has those that bring next to
// nothing give theirs up, and then the one that has its own for longest. It fails where none comes free for as long
// as a source may be silent. D-224 says why.
type slots struct {
	free    *semaphore.Weighted
	most    int
	timeout time.Duration

	// mu guards the rest.
	mu sync.Mutex
	// held are the fetches that have one, and what they had brought when they were looked at last.
	held map[*fetch]progress
	// left counts how often one was given back.
	left uint64
}

// progress is when a fetch got its slot and how far it had come then, and the same at a later time.
type progress struct {
	entered, at   time.Time
	before, bytes int64
}

func newSlots(most int, timeout time.Duration) *slots {
	return &slots{free: semaphore.NewWeighted(int64(most)), most: most, timeout: timeout, held: map[*fetch]progress{}}
}

// enter waits for a slot.
func (s *slots) enter(ctx context.Context, f *fetch) error {
	if !s.free.TryAcquire(1) {
		wait, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		go s.press(wait, cancel)
		if err := s.free.Acquire(wait, 1); err != nil {
			return s.explain(wait, err, f)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now, brought := time.Now(), f.brought.Load()
	s.held[f] = progress{now, now, brought, brought}
	return nil
}

// explain is the error of a fetch that got no slot.
func (s *slots) explain(wait context.Context, err error, f *fetch) error {
	if errors.Is(context.Cause(wait), cacheclient.ErrUnavailable) {
		return fmt.Errorf("read %q: %w", f.e.info.Path, context.Cause(wait))
	}
	return err
}

// leave gives a slot back.
func (s *slots) leave(f *fetch) {
	s.mu.Lock()
	delete(s.held, f)
	s.left++
	s.mu.Unlock()
	s.free.Release(1)
}

// press is called beside a wait, until that ends. It interrupts bodies that drip, and ends the wait where no slot is
// given back for the timeout.
func (s *slots) press(wait context.Context, cancel context.CancelCauseFunc) {
	look := time.NewTicker(max(s.timeout/8, time.Millisecond))
	defer look.Stop()
	seen, since := s.turn(), time.Now()
	for {
		select {
		case <-wait.Done():
			return
		case <-look.C:
		}
		if left := s.turn(); left != seen {
			seen, since = left, time.Now()
		}
		waited := time.Since(since)
		if waited >= s.timeout+s.timeout/4 {
			// Silence would have ended before.
			cancel(fmt.Errorf("all %d connections are busy, and none came free for %v: %w", s.most,
				waited.Round(time.Millisecond), cacheclient.ErrUnavailable))
			return
		}
		s.interruptOne(waited >= s.timeout/2)
	}
}

func (s *slots) turn() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.left
}

// interruptOne has one of the fetches end its attempt: one that drips, or else the one that began first where any
// will do.
func (s *slots) interruptOne(anyone bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var first *fetch
	for f, p := range s.held {
		if s.drips(f, p) && f.preempt() {
			return
		}
		if time.Since(p.entered) >= f.share(p, s.timeout/2) &&
			(first == nil || p.entered.Before(s.held[first].entered)) {
			first = f
		}
	}
	if anyone && first != nil {
		first.preempt()
	}
}

// drips reports whether a fetch has brought little since it was looked at last, long ago; mu is held. One that brings
// nothing ends by its silence.
func (s *slots) drips(f *fetch, p progress) bool {
	now, brought := time.Now(), f.brought.Load()
	d := now.Sub(p.at)
	if d < f.share(p, s.timeout/4) {
		return false
	}
	s.held[f] = progress{p.entered, now, p.before, brought}
	return brought > p.bytes && float64(brought-p.bytes) < leastRate*d.Seconds()
}

// preemption is how attempts of a fetch are ended for the sake of others.
type preemption struct {
	// brought counts the bytes that came.
	brought atomic.Int64
	// ending ends the present attempt, which preempted says.
	ending    atomic.Pointer[context.CancelFunc]
	preempted atomic.Bool
	// times is how often that happened, and restarts says that the next attempt begins where this one did.
	times    atomic.Int32
	restarts atomic.Bool
}

// share is how long a fetch may keep a slot that others wait for: longer after each time where nothing has come yet, or
// where it begins anew, so that it ends as well.
func (p *preemption) share(since progress, d time.Duration) time.Duration {
	if !p.restarts.Load() && p.brought.Load() > since.before {
		return d
	}
	return d << min(p.times.Load(), mostDoublings)
}

// preempt ends the present attempt of the fetch, and reports whether there is one that was not ended already.
func (p *preemption) preempt() bool {
	end := p.ending.Load()
	if end == nil || p.preempted.Swap(true) {
		return false
	}
	p.times.Add(1)
	(*end)()
	return true
}

// came counts bytes that came.
func (f *fetch) came(n int64) {
	f.brought.Add(n)
	f.e.c.count.bytesSource.Add(n)
}

// enter waits for one of the slots, and leave gives it back.
func (f *fetch) enter(ctx context.Context) error {
	err := f.e.c.slots.enter(ctx, f)
	f.admitted = err == nil
	if errors.Is(err, cacheclient.ErrUnavailable) {
		f.e.c.health.noteError(err)
	}
	return err
}

func (f *fetch) leave() {
	if f.admitted {
		f.e.c.slots.leave(f)
		f.admitted = false
	}
}

// pause waits, without the slot, which others may use meanwhile. It returns how long it then waited for one.
func (f *fetch) pause(ctx context.Context, d time.Duration) (queued time.Duration, err error) {
	f.leave()
	if !sleep(ctx, d) {
		return 0, ctx.Err()
	}
	begun := time.Now()
	err = f.enter(ctx)
	return time.Since(begun), err
}
