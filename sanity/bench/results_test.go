package main

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestMedian(t *testing.T) {
	for _, tc := range []struct {
		values []float64
		want   float64
	}{
		{nil, 0},
		{[]float64{3}, 3},
		{[]float64{9, 1, 4}, 4},
		{[]float64{4, 1, 2, 9}, 3},
	} {
		if got := median(tc.values); got != tc.want {
			t.Errorf("median(%v) = %v, want %v", tc.values, got, tc.want)
		}
	}
}

func TestTargets(t *testing.T) {
	for _, tc := range []struct {
		target       target
		value, other float64
		want         bool
	}{
		{target{of: native, bound: 0.9, atLeast: true}, 90, 100, true},
		{target{of: native, bound: 0.9, atLeast: true}, 89, 100, false},
		{target{of: curl, bound: 2}, 2, 1, true},
		{target{of: curl, bound: 2}, 2.1, 1, false},
		{target{bound: 300}, 300, 0, true},
		{target{bound: 300}, 301, 0, false},
	} {
		if got := tc.target.met(tc.value, tc.other); got != tc.want {
			t.Errorf("%+v of %v beside %v: met %v", tc.target, tc.value, tc.other, got)
		}
	}
}

func TestResultsAreOrderedAndJudged(t *testing.T) {
	var r results
	for _, v := range []float64{10, 30, 20} {
		r.add("mount", millrace, v)
		r.add("warm-seq", native, v*10)
		r.add("warm-seq", millrace, v)
	}
	name := filepath.Join(t.TempDir(), "results.json")
	if err := r.write(name); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var got []result
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	want := []result{
		{Case: "warm-seq", System: millrace, Value: 20, Unit: "MB/s"},
		{Case: "warm-seq", System: native, Value: 200, Unit: "MB/s"},
		{Case: "mount", System: millrace, Value: 20, Unit: "ms"},
	}
	if len(got) != len(want) {
		t.Fatalf("wrote %d results, want %d: %s", len(got), len(want), text)
	}
	for i, w := range want {
		g := got[i]
		if g.Case != w.Case || g.System != w.System || g.Value != w.Value || g.Unit != w.Unit || len(g.Rounds) != 3 {
			t.Errorf("result %d is %+v, want %+v", i, g, w)
		}
	}
	var out strings.Builder
	r.report(&out)
	for _, line := range []string{"0.10 x, MISSED", "target     <= 300 ms: met", "1 targets met, 1 missed"} {
		if !strings.Contains(out.String(), line) {
			t.Errorf("the report lacks %q:\n%s", line, out.String())
		}
	}
}

// TestResultsOfOtherCasesStay measures a part again.
func TestResultsOfOtherCasesStay(t *testing.T) {
	name := filepath.Join(t.TempDir(), "results.json")
	var first, again results
	first.add("warm-seq", millrace, 1)
	first.add("mount", millrace, 2)
	first.add("mount", native, 3)
	again.add("mount", millrace, 4)
	if err := errors.Join(first.write(name), again.write(name)); err != nil {
		t.Fatal(err)
	}
	got, err := load(name)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.values) != 2 || got.values[0].Value != 1 || got.values[1].Value != 4 {
		t.Errorf("got %+v, want warm-seq of the first run and mount of the second", got.values)
	}
	if err := os.WriteFile(name, []byte("no results"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := again.write(name); err == nil {
		t.Error("a file that has no results is overwritten")
	}
}
