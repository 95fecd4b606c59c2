// Package deaths tells how long the successor of a process that died waits before it serves.
//
// What counts is how many died in a window of time, whatever they served in between: a process that starts, serves for
// a moment and dies over the next request would otherwise be started many times a second for ever.
package deaths

import "time"

const (
	// Window is how far back deaths count.
	Window = time.Minute
	// few is how many deaths within it make the successor wait for no more than a moment each.
	few    = 3
	moment = 100 * time.Millisecond
	// longest bounds the wait, which doubles with each death beyond few, from first on.
	first   = time.Second
	longest = 10 * time.Second
)

// Pause is how long the successor waits when its predecessors died at these times.
func Pause(died []time.Time, now time.Time) time.Duration {
	n := Count(died, now)
	if n <= few {
		return time.Duration(n) * moment
	}
	pause := first
	for range n - few - 1 {
		pause = min(2*pause, longest)
	}
	return pause
}

// Count is how many of the deaths are in the window.
func Count(died []time.Time, now time.Time) int {
	n := 0
	for _, at := range died {
		if age := now.Sub(at); age >= 0 && age < Window {
			n++
		}
	}
	return n
}

// Many reports whether so many died that the successor is to wait for more than a moment.
func Many(died []time.Time, now time.Time) bool { return Count(died, now) > few }

// Recent are the deaths that still count, this one added to those before.
func Recent(died []time.Time, now time.Time) []time.Time {
	recent := make([]time.Time, 0, len(died)+1)
	for _, at := range died {
		if Count([]time.Time{at}, now) == 1 {
			recent = append(recent, at)
		}
	}
	return append(recent, now)
}
