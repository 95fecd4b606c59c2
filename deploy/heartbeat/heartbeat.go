// Package heartbeat has long steps say that they go on, instead of seeming to hang.
package heartbeat

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// Interval is the time between two lines of a step: less than the 10 seconds that a terminal may be silent.
const Interval = 8 * time.Second

// Start writes a line each interval until the returned function is called, which waits for a line that is being
// written. What the line says is asked each time; the time since the start is appended.
func Start(out io.Writer, interval time.Duration, say func() string) (stop func()) {
	begin, done := time.Now(), make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() {
		tick := time.NewTicker(interval)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				fmt.Fprintf(out, "%s ... %.0f s\n", say(), time.Since(begin).Seconds())
			}
		}
	})
	return sync.OnceFunc(func() { close(done); all.Wait() })
}
