// Package mixin evaluates the alerts of Prometheus' kubernetes-mixin on volumes that fill up, as they are written
// there, on what a kubelet says of a volume over time. PromQL itself would bring a server's worth of modules.
//
// The rules are KubePersistentVolumeFillingUp and KubePersistentVolumeInodesFillingUp, each critical and as a warning:
//
//	free / capacity < 0.03 and used > 0
//	free / capacity < 0.15 and used > 0 and predict_linear(free[6h], 4 * 24 * 3600) < 0
//
// They make exceptions of claims that are ReadOnlyMany, or have a label. No use is made of them here: claims of
// Datasets are ReadWriteMany, as in Fluid.
package mixin

import (
	"slices"
	"time"
)

// Sample is what kubelet says of a volume at a time; what the driver does not tell it says as 0.
type Sample struct {
	At                  time.Duration
	Available, Capacity float64
	Used                float64
	InodesFree, Inodes  float64
	InodesUsed          float64
}

// The numbers of the rules.
const (
	criticalPart = 0.03
	warningPart  = 0.15
	window       = 6 * time.Hour
	horizon      = 4 * 24 * time.Hour
)

// Firing names the alerts whose expression is true after the last of the samples, which are in the order of time.
func Firing(samples []Sample) []string {
	var firing []string
	last := samples[len(samples)-1]
	for _, rule := range []struct {
		name        string
		whole, used float64
		free        func(Sample) float64
	}{
		{"KubePersistentVolumeFillingUp", last.Capacity, last.Used, func(s Sample) float64 { return s.Available }},
		{
			"KubePersistentVolumeInodesFillingUp", last.Inodes, last.InodesUsed,
			func(s Sample) float64 { return s.InodesFree },
		},
	} {
		// 0 of 0 is no number, and less than none.
		part, used := rule.free(last)/rule.whole, rule.used > 0
		if part < criticalPart && used {
			firing = append(firing, rule.name+" critical")
		}
		if predicted, ok := predictLinear(samples, rule.free); ok && part < warningPart && used && predicted < 0 {
			firing = append(firing, rule.name+" warning")
		}
	}
	return firing
}

// predictLinear is the value that a line through the window's samples has at the horizon; with one sample there is
// none.
func predictLinear(samples []Sample, value func(Sample) float64) (float64, bool) {
	now := samples[len(samples)-1].At
	first := slices.IndexFunc(samples, func(s Sample) bool { return s.At > now-window })
	var n, sumX, sumY, sumXX, sumXY float64
	for _, s := range samples[first:] {
		x, y := (s.At - now).Seconds(), value(s)
		n, sumX, sumY, sumXX, sumXY = n+1, sumX+x, sumY+y, sumXX+x*x, sumXY+x*y
	}
	if n < 2 {
		return 0, false
	}
	slope := (n*sumXY - sumX*sumY) / (n*sumXX - sumX*sumX)
	return (sumY-slope*sumX)/n + slope*horizon.Seconds(), true
}
