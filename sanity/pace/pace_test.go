package pace

import (
	"runtime"
	"testing"
	"time"
)

// TestOtherWorkShows measures beside three busy goroutines a processor, which leave the measurement a quarter of each.
func TestOtherWorkShows(t *testing.T) {
	alone := measure()
	stop := make(chan struct{})
	defer close(stop)
	for range 3 * runtime.GOMAXPROCS(0) {
		go func() {
			for {
				select {
				case <-stop:
					return
				default:
					work(1)
				}
			}
		}()
	}
	if beside := measure(); beside < 1.2*alone && beside < most {
		t.Errorf("a factor of %.2f beside other work, and of %.2f without", beside, alone)
	}
}

func TestLimit(t *testing.T) {
	if got, want := Limit(time.Second), time.Duration(float64(time.Second)*Factor()); got != want || got < time.Second {
		t.Errorf("Limit(1s) is %v, want %v", got, want)
	}
}

func TestWithin(t *testing.T) {
	inner := &testing.T{}
	Within(inner, "a call", 2*most*time.Second, time.Second)
	if !inner.Failed() {
		t.Error("a call that takes far longer than any limit passes")
	}
	Within(t, "a call", time.Second, time.Second)
}
