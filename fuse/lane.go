package fuse

import (
	"context"
	"sync"
	"time"
)

// turnTimes are how long a request that was in service when a process died is served with no other one of them, by how
// many processes did, and turnTotals bound what all that wait for their turns wait, about: where many do, each turn is
// shorter. What is to be found out takes longer at each death, as with memory that runs out.
var (
	turnTimes  = [...]time.Duration{100 * time.Millisecond, time.Second, 2 * time.Second}
	turnTotals = [...]time.Duration{2 * time.Second, 4 * time.Second, 4 * time.Second}
)

// lane lets one request in at a time that was in service when a process died. It is the process's and no session's: a
// death is that of all sessions, and those that they serve beside the one that ends the process are not to be blamed.
// D-210 says why.
type lane struct {
	// place has a token while a turn is taken.
	place chan struct{}

	// mu guards the rest, and the turns.
	mu sync.Mutex
	// waiting is how many wait, and crowd the most that did since the lane was empty.
	waiting, crowd int
	// turns are those that are served: the one that has the lane, and those whose time is over.
	turns map[*turn]bool
}

// turn is one request's.
type turn struct {
	// beside notes whether others are served beside it: then it is not known which of them is to be blamed.
	beside func(bool)
	// inside reports whether the turn has the lane.
	inside bool
}

// processLane is the one of this process.
var processLane = newLane()

func newLane() *lane {
	return &lane{place: make(chan struct{}, 1), turns: make(map[*turn]bool)}
}

// enter waits until the lane is free, or the context ends. leave lets the next one in; that is done before where the
// request takes long, for one that was in service at so many deaths.
func (l *lane) enter(ctx context.Context, deaths uint32, beside func(bool)) (leave func()) {
	l.queue(1)
	select {
	case l.place <- struct{}{}:
	case <-ctx.Done():
		l.queue(-1)
		return func() {}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waiting--
	t := &turn{beside: beside, inside: true}
	l.turns[t] = true
	l.mark()
	late := time.AfterFunc(l.length(deaths), func() { l.delay(t) })
	return func() {
		late.Stop()
		l.leave(t)
	}
}

// queue adds to those that wait.
func (l *lane) queue(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waiting += n
	l.crowd = max(l.crowd, l.waiting)
}

// length is that of a turn; mu is held.
func (l *lane) length(deaths uint32) time.Duration {
	i := min(max(int(deaths), 1), len(turnTimes)) - 1
	return min(turnTimes[i], turnTotals[i]/time.Duration(max(l.crowd, 1)))
}

// delay lets the next one in beside a request that takes long.
func (l *lane) delay(t *turn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.vacate(t)
}

// leave ends a turn, once or more often.
func (l *lane) leave(t *turn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.turns, t)
	l.mark()
	t.beside(false)
	l.vacate(t)
}

// vacate gives the lane to the next one, where the turn has it; mu is held.
func (l *lane) vacate(t *turn) {
	if !t.inside {
		return
	}
	t.inside = false
	if l.waiting == 0 {
		l.crowd = 0
	}
	<-l.place
}

// mark tells each of those that are served whether there are others; mu is held.
func (l *lane) mark() {
	for t := range l.turns {
		t.beside(len(l.turns) > 1)
	}
}
