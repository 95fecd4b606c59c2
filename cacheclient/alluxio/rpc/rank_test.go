package rpc

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// someWorkers are workers of a cluster of that size. They are not connected to.
func someWorkers(n int) []*Worker {
	workers := make([]*Worker, n)
	for i := range workers {
		workers[i] = &Worker{endpoint: &Endpoint{addr: fmt.Sprintf("worker-%d.workers.default.svc:29999", i)}}
	}
	return workers
}

// blockIDs are those of files that were loaded one after the other, of some blocks each, as masters number them.
func blockIDs(files, blocks int) []int64 {
	var ids []int64
	for f := range files {
		for b := range blocks {
			ids = append(ids, int64(f+1)<<24|int64(b))
		}
	}
	return ids
}

func TestRankIsEven(t *testing.T) {
	for _, n := range []int{2, 3, 20} {
		workers := someWorkers(n)
		for _, ids := range [][]int64{blockIDs(3000, 1), blockIDs(1, 3000), blockIDs(30, 100)} {
			counts := [2]map[*Worker]int{{}, {}}
			for _, id := range ids {
				ranked := Rank(workers, id)
				counts[0][ranked[0]]++
				counts[1][ranked[1]]++
			}
			for place := range counts {
				want := float64(len(ids)) / float64(n)
				chi := 0.0
				for _, w := range workers {
					d := float64(counts[place][w]) - want
					chi += d * d / want
				}
				// The expected value is n-1 with a variance of 2(n-1): beyond 6 standard deviations by chance once in 10^6.
				if limit := float64(n-1) + 6*max(1.5, math.Sqrt(2*float64(n-1))); chi > limit {
					t.Errorf("%d workers, place %d: chi square is %.1f, wanted at most %.1f", n, place, chi, limit)
				}
			}
		}
	}
}

// TestRankIsStable checks that a worker that goes gives its blocks to those that were their second, and changes nothing
// else; that the order in which workers are named does not matter; and what the scores are, which every agent of
// every version must agree on.
func TestRankIsStable(t *testing.T) {
	workers := someWorkers(7)
	gone := workers[3]
	fewer := slices.DeleteFunc(slices.Clone(workers), func(w *Worker) bool { return w == gone })
	shuffled := slices.Clone(workers)
	rand.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
	moved := 0
	for _, id := range blockIDs(300, 10) {
		before := Rank(workers, id)
		if !slices.Equal(before, Rank(shuffled, id)) {
			t.Fatalf("block %d is ranked otherwise when the workers are named in another order", id)
		}
		if before[0] == gone {
			moved++
		}
		want := slices.DeleteFunc(slices.Clone(before), func(w *Worker) bool { return w == gone })
		if !slices.Equal(want, Rank(fewer, id)) {
			t.Fatalf("block %d: a worker that goes changes the order of the others", id)
		}
	}
	if moved == 0 {
		t.Error("no block was the lost worker's")
	}
	if got, want := score("10.0.0.1:29999", 16777216), uint64(0xf175523f8648174c); got != want {
		t.Errorf("the score is %#x, wanted %#x: agents of two versions would disagree", got, want)
	}
	if len(Rank(nil, 1)) != 0 {
		t.Error("no workers have a rank")
	}
}
