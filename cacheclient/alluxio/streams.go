package alluxio

import (
	"context"
	"sync"
	"sync/atomic"
)

// maxStreams bounds the streams of a version, for each who has it open: readers at several places.
const maxStreams = 4

// streams are the reads from workers of one version that go on. All who have the version open share them: the kernel
// sends the requests of several readers of one file, who share its pages, by any of their handles.
// D-057 says why.
type streams struct {
	// users are who has the version open. It changes under Client.mu.
	users atomic.Int32
	// life ends when the last of them closes it, and with it the streams.
	life context.Context
	end  context.CancelFunc

	// mu guards the rest.
	mu sync.Mutex
	// list are the streams.
	list []*stream
	// opening are the blocks that somebody opens a stream of; each is closed when that is done.
	opening map[int]chan struct{}
	// trail are the reads by any handle.
	trail trail
}

// follows reports whether a read follows another by any handle. The first of all does near the beginning of the file:
// what was asked for before it may arrive after it.
func (s *streams) follows(off, n int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	first := s.trail.next == 0
	return s.trail.follows(off, n) || first && off <= slack
}

// join is the streams of a version for one more who opens it; c.mu is held.
func (c *Client) join(l layout) *streams {
	s := c.streams[l]
	if s == nil {
		s = &streams{opening: make(map[int]chan struct{})}
		s.life, s.end = context.WithCancel(c.life)
		c.streams[l] = s
	}
	s.users.Add(1)
	return s
}

// leave ends the use of streams by one who closes the version, and the streams with the last.
func (c *Client) leave(l layout, s *streams) {
	if !c.lastOf(l, s) {
		return
	}
	s.end()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, st := range s.list {
		st.close()
	}
	s.list = nil
}

// lastOf counts one user of streams less, and reports whether it was the last.
func (c *Client) lastOf(l layout, s *streams) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.users.Add(-1) > 0 {
		return false
	}
	delete(c.streams, l)
	return true
}

// of is the stream that brings a span soon, or has it, nil where there is none. opening is closed when a stream of the
// block that somebody opens is there; nil when nobody does.
func (s *streams) of(sp span) (st *stream, opening <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, st := range s.list {
		if st.k == sp.k && st.has(sp) {
			return st, nil
		}
	}
	if o := s.opening[sp.k]; o != nil {
		return nil, o
	}
	return nil, nil
}

// keep adds a stream, in the place of the one that was not read for the longest time if there are many.
func (s *streams) keep(st *stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.life.Err() != nil || s.users.Load() == 0 {
		// The last one is closing the version.
		st.close()
		return
	}
	if len(s.list) < maxStreams*int(s.users.Load()) {
		s.list = append(s.list, st)
		return
	}
	oldest := 0
	for i := range s.list {
		if s.list[i].lastUsed().Before(s.list[oldest].lastUsed()) {
			oldest = i
		}
	}
	s.list[oldest].close()
	s.list[oldest] = st
}

// drop ends a stream that failed.
func (s *streams) drop(st *stream) {
	st.close()
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.list {
		if s.list[i] == st {
			s.list = append(s.list[:i], s.list[i+1:]...)
			return
		}
	}
}

// claim marks a block as having a stream opened, false if somebody else does that already. unclaim ends it.
func (s *streams) claim(k int) (unclaim func(), ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.opening[k] != nil {
		return nil, false
	}
	opening := make(chan struct{})
	s.opening[k] = opening
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.opening, k)
		close(opening)
	}, true
}
