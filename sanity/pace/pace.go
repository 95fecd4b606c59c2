// Package pace stretches the limits of time in tests by how slow the machine is.
//
// A limit is written for a machine of two idle cores. [Factor] measures, once a process, how much longer a fixed piece
// of work takes here on all processors at once: other work on the machine and slower processors show in the same
// number. [Limit] multiplies by it, and [Within] measures again before a test fails, since the machine may have become
// busy since. A test that can count events instead needs none of this.
package pace

import (
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"
)

const (
	// reference is the nanoseconds that a step takes on the machine that limits are written for: 2.7 GHz and idle.
	reference = 2.4
	// steps of the work take 24 ms on that machine, long enough for its scheduler to show other work.
	steps = 10_000_000
	// rounds of the work are done by each processor.
	rounds = 4
	// most bounds the factor: a machine slower than that is broken, and tests should say so.
	most = 12
)

// Factor reports how many times slower this machine was than the reference when this process first asked: 1 to 12.
var Factor = sync.OnceValue(measure)

// Limit stretches a limit by Factor.
func Limit(d time.Duration) time.Duration { return time.Duration(float64(d) * Factor()) }

// Within fails the test where what it names took longer than the limit, stretched by the factor of now where that is
// larger than that of the start.
func Within(tb testing.TB, what string, took, limit time.Duration) {
	tb.Helper()
	if took <= limit {
		return
	}
	factor := Factor()
	if took > time.Duration(float64(limit)*factor) {
		factor = max(factor, measure())
	}
	if stretched := time.Duration(float64(limit) * factor); took > stretched {
		tb.Errorf("%s took %v; the limit is %v, %v on this machine (%.1f times slower)", what, took, limit, stretched,
			factor)
	}
}

// String tells the factor for people.
func String() string {
	return fmt.Sprintf("this machine is %.1f times as slow as the one that limits of time are written for", Factor())
}

// measure does the work on every processor and compares the mean time of a step with the reference.
func measure() float64 {
	procs := runtime.GOMAXPROCS(0)
	took := make([]time.Duration, procs)
	var all sync.WaitGroup
	for p := range procs {
		all.Go(func() {
			start := time.Now()
			for range rounds {
				work(uint64(p) + 1)
			}
			took[p] = time.Since(start)
		})
	}
	all.Wait()
	var sum time.Duration
	for _, d := range took {
		sum += d
	}
	step := float64(sum.Nanoseconds()) / float64(procs*rounds*steps)
	return min(max(step/reference, 1), most)
}

// work is a chain of steps, each of which waits for the one before.
func work(x uint64) {
	for range steps {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
	}
	runtime.KeepAlive(x)
}

// Long skips a test that takes more than two seconds where an answer is wanted soon: go test -short.
func Long(tb testing.TB) {
	tb.Helper()
	if testing.Short() {
		tb.Skip("takes more than two seconds: make test")
	}
}
