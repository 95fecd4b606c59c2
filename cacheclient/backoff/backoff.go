// Package backoff makes the pauses between attempts at what fails for a while: each is longer than the one before, up
// to a bound.
//
// D-010 says why.
package backoff

import (
	"time"

	"github.com/cenkalti/backoff/v5"
)

// Pauses are the pauses of one row of attempts. Their zero value is of no use: First, Longest and Factor are to be set.
// They are for one goroutine, and cost nothing until the first attempt has failed.
type Pauses struct {
	// First is the first pause and Longest bounds all; each is Factor times the one before.
	First, Longest time.Duration
	Factor         float64
	// Spread is the part of a pause, from 0 to 1, up to which it is cut by chance: what failed for many at once is then
	// not tried again by all at once.
	Spread float64

	row *backoff.ExponentialBackOff
}

// Next gives the next pause.
func (p *Pauses) Next() time.Duration {
	if p.row == nil {
		// The library spreads to both sides of a pause.
		middle := 1 - p.Spread/2
		p.row = &backoff.ExponentialBackOff{
			InitialInterval: scaled(p.First, middle), MaxInterval: scaled(p.Longest, middle),
			Multiplier: p.Factor, RandomizationFactor: p.Spread / 2 / middle,
		}
	}
	return p.row.NextBackOff()
}

// Restart has the first pause come next: something has succeeded.
func (p *Pauses) Restart() { p.row = nil }

func scaled(d time.Duration, by float64) time.Duration { return time.Duration(float64(d) * by) }
