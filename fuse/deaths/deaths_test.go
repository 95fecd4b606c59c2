package deaths

import (
	"testing"
	"time"
)

func TestPause(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	ago := func(ages ...time.Duration) (died []time.Time) {
		for _, age := range ages {
			died = append(died, now.Add(-age))
		}
		return died
	}
	seconds := func(n int) (died []time.Time) {
		for i := range n {
			died = append(died, now.Add(-time.Duration(i)*time.Second))
		}
		return died
	}
	for name, c := range map[string]struct {
		died []time.Time
		want time.Duration
	}{
		"none":                       {nil, 0},
		"the first":                  {ago(0), moment},
		"the third":                  {seconds(3), 3 * moment},
		"the fourth":                 {seconds(4), first},
		"the sixth":                  {seconds(6), 4 * first},
		"many":                       {seconds(50), longest},
		"one before the window":      {ago(0, Window), moment},
		"a clock that was put back":  {ago(0, -time.Hour), moment},
		"many before, and one again": {append(ago(0), ago(2*Window, 3*Window, 4*Window, 5*Window)...), moment},
	} {
		if got := Pause(c.died, now); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
	var died []time.Time
	for i := range 1000 {
		died = Recent(died, now.Add(time.Duration(i)*time.Second))
	}
	if len(died) > 60 {
		t.Errorf("%d deaths are kept of the last minute, one a second", len(died))
	}
}
