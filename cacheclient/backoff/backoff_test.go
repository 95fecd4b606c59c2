package backoff

import (
	"slices"
	"testing"
	"time"
)

func TestPausesGrowToTheLongest(t *testing.T) {
	p := Pauses{First: 20 * time.Millisecond, Longest: 100 * time.Millisecond, Factor: 2}
	want := []time.Duration{20, 40, 80, 100, 100}
	for range 2 {
		var got []time.Duration
		for range want {
			got = append(got, p.Next()/time.Millisecond)
		}
		if !slices.Equal(got, want) {
			t.Errorf("got %d ms, want %d", got, want)
		}
		p.Restart()
	}
}

func TestSpreadCutsPauses(t *testing.T) {
	short, long := time.Hour, time.Duration(0)
	for range 10000 {
		p := Pauses{First: time.Second, Longest: time.Second, Factor: 1.5, Spread: 0.5}
		for range 3 {
			pause := p.Next()
			short, long = min(short, pause), max(long, pause)
		}
	}
	// A nanosecond is the library's rounding.
	if short < time.Second/2 || short > 510*time.Millisecond || long > time.Second+1 || long < 990*time.Millisecond {
		t.Errorf("pauses from %v to %v, want from 0.5 s to 1 s", short, long)
	}
}
