package mixin

import (
	"slices"
	"testing"
	"time"
)

// TestFiring has volumes over six hours, for which Prometheus' own evaluation was worked out by hand.
func TestFiring(t *testing.T) {
	series := func(sample func(hour float64) Sample) []Sample {
		var all []Sample
		for minute := range 6 * 60 {
			s := sample(float64(minute) / 60)
			s.At = time.Duration(minute) * time.Minute
			all = append(all, s)
		}
		return all
	}
	for name, c := range map[string]struct {
		samples []Sample
		want    []string
	}{
		"empty":  {series(func(float64) Sample { return Sample{Available: 100, Capacity: 100} }), nil},
		"half":   {series(func(float64) Sample { return Sample{Available: 50, Capacity: 100, Used: 50} }), nil},
		"untold": {series(func(float64) Sample { return Sample{} }), nil},
		"full": {
			series(func(float64) Sample { return Sample{Available: 2, Capacity: 100, Used: 98} }),
			[]string{"KubePersistentVolumeFillingUp critical"},
		},
		"filling": {
			series(func(h float64) Sample { return Sample{Available: 100 - 15*h, Capacity: 100, Used: 15 * h} }),
			[]string{"KubePersistentVolumeFillingUp warning"},
		},
		"inodes": {
			series(func(float64) Sample { return Sample{Inodes: 2, InodesUsed: 2} }),
			[]string{"KubePersistentVolumeInodesFillingUp critical"},
		},
	} {
		if got := Firing(c.samples); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
	if got := Firing([]Sample{{Available: 10, Capacity: 100, Used: 90}}); got != nil {
		t.Errorf("one sample has no slope: %q", got)
	}
}
