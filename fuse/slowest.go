package fuse

import (
	"cmp"
	"slices"
	"sync"
	"time"
)

const (
	// slowFloor is the time below which no request is slow.
	slowFloor = time.Millisecond
	// slowWindow is how far the memory of slow requests goes back; it is kept in slices of slowSlice each, one more
	// than fit into it because the latest is still filling.
	slowWindow = time.Minute
	slowSlice  = 10 * time.Second
	slowSlices = int64(slowWindow/slowSlice) + 1
	// slowKept is how many requests are kept of each slice, and told in all.
	slowKept = 16
)

// slowest remembers the slowest requests of the last minute. Each slice of time keeps its slowest, so that those of
// the whole minute are known whatever came before it.
type slowest struct {
	// mu guards slices.
	mu     sync.Mutex
	slices [slowSlices]slowestOf
}

// slowestOf are the slowest requests that ended in one slice of time, which is known by its number since the epoch.
type slowestOf struct {
	number int64
	events []Event
}

// slice is the slice that the time is in, emptied if it held an older one; mu is held.
func (s *slowest) slice(at time.Time) *slowestOf {
	number := at.UnixNano() / int64(slowSlice)
	of := &s.slices[number%slowSlices]
	if of.number != number {
		*of = slowestOf{number: number, events: of.events[:0]}
	}
	return of
}

// fastest is the index of the fastest of the slice's requests, -1 while there is room for another.
func (of *slowestOf) fastest() int {
	if len(of.events) < slowKept {
		return -1
	}
	least := 0
	for i, e := range of.events {
		if e.Took < of.events[least].Took {
			least = i
		}
	}
	return least
}

// enters reports whether a request that began then and took so long is one to keep.
func (s *slowest) enters(began time.Time, took time.Duration) bool {
	if took < slowFloor {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	of := s.slice(began.Add(took))
	least := of.fastest()
	return least < 0 || of.events[least].Took < took
}

// add keeps a request, in place of a faster one where there is no room.
func (s *slowest) add(e Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	of := s.slice(e.Time.Add(e.Took))
	switch least := of.fastest(); {
	case least < 0:
		of.events = append(of.events, e)
	case of.events[least].Took < e.Took:
		of.events[least] = e
	}
}

// list is the slowest requests that ended in the minute before now, the slowest first.
func (s *slowest) list(now time.Time) []Event {
	var all []Event
	s.mu.Lock()
	for _, of := range s.slices {
		for _, e := range of.events {
			if now.Sub(e.Time.Add(e.Took)) <= slowWindow {
				all = append(all, e)
			}
		}
	}
	s.mu.Unlock()
	slices.SortFunc(all, func(a, b Event) int { return cmp.Compare(b.Took, a.Took) })
	return all[:min(len(all), slowKept)]
}
