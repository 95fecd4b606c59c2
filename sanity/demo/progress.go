package main

import (
	"fmt"
	"sync"
	"time"
)

// patience is how long a step may take before it says how far it is, and how often it says that again.
const patience = 4 * time.Second

// during runs a step. While that takes longer than patience it prints how far it is.
func during(what string, far func(elapsed time.Duration) string, step func() error) error {
	done := make(chan struct{})
	var watch sync.WaitGroup
	watch.Go(func() {
		began := time.Now()
		tick := time.NewTicker(patience)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case now := <-tick.C:
				elapsed := now.Sub(began)
				fmt.Printf("                  ... %s: %s\n", what, far(elapsed))
			}
		}
	})
	defer watch.Wait()
	defer close(done)
	return step()
}

// share tells a part of the whole, and how long the rest may take at this rate.
func share(part, whole int64, unit func(int64) string, elapsed time.Duration) string {
	text := fmt.Sprintf("%s of %s after %.0f s", unit(part), unit(whole), elapsed.Seconds())
	if part <= 0 || part >= whole {
		return text
	}
	left := time.Duration(float64(elapsed) * float64(whole-part) / float64(part))
	return fmt.Sprintf("%s, about %.0f s left", text, left.Seconds())
}

// seconds tells the time alone, of a step that does not know how far it is.
func seconds(elapsed time.Duration) string { return fmt.Sprintf("%.0f s", elapsed.Seconds()) }
