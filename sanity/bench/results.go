package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"github.com/google/renameio/v2"
)

// result is what one system did in one case.
type result struct {
	Case   string `json:"case"`
	System string `json:"system"`
	// Value is the median of Rounds.
	Value  float64   `json:"value"`
	Unit   string    `json:"unit"`
	Rounds []float64 `json:"rounds"`
}

// results are all values so far, and what could not be measured.
type results struct {
	values   []result
	failures []string
}

// add keeps a value, in the unit of the case.
func (r *results) add(name, system string, value float64) {
	for i := range r.values {
		if v := &r.values[i]; v.Case == name && v.System == system {
			v.Rounds = append(v.Rounds, value)
			v.Value = median(v.Rounds)
			return
		}
	}
	i := slices.Index(caseNames(), name)
	r.values = append(r.values, result{
		Case: name, System: system, Value: value, Unit: cases()[i].unit,
		Rounds: []float64{value},
	})
}

// fail notes that something could not be measured.
func (r *results) fail(what string, err error) {
	r.failures = append(r.failures, fmt.Sprintf("%s: %v", what, err))
}

// failure is nil when everything could be measured.
func (r *results) failure() error {
	if len(r.failures) == 0 {
		return nil
	}
	return fmt.Errorf("%d measurements failed, the first is %s", len(r.failures), r.failures[0])
}

// find is the result of a system in a case.
func (r *results) find(name, system string) (result, bool) {
	i := slices.IndexFunc(r.values, func(v result) bool { return v.Case == name && v.System == system })
	if i < 0 {
		return result{}, false
	}
	return r.values[i], true
}

// load reads results that were written before.
func load(name string) (*results, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	r := &results{}
	if err := json.Unmarshal(text, &r.values); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return r, nil
}

// write writes the results to a file, ordered by case and system. What an earlier run has written of cases that this
// one has not measured stays.
func (r *results) write(name string) error {
	if len(r.values) == 0 {
		return errors.New("nothing was measured")
	}
	before, err := load(name)
	if errors.Is(err, fs.ErrNotExist) {
		before, err = &results{}, nil
	}
	if err != nil {
		return err
	}
	ordered := []result{}
	for _, c := range caseNames() {
		from := r
		if !slices.ContainsFunc(r.values, func(v result) bool { return v.Case == c }) {
			from = before
		}
		for _, system := range systems() {
			if v, ok := from.find(c, system); ok {
				ordered = append(ordered, v)
			}
		}
	}
	text, err := json.MarshalIndent(ordered, "", "  ")
	if err != nil {
		return err
	}
	return renameio.WriteFile(name, append(text, '\n'), 0o644)
}

// systems are in the order in which they are printed.
func systems() []string { return []string{millrace, native, rclone, curl, alluxioFuse, alluxioCLI} }

// median is the middle value, or the mean of the middle two.
func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	if n == 0 {
		return 0
	}
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}
