package liar

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"sync"
)

// Seed is the number that decides what a run does.
type Seed uint64

// Dice are draws of their own for the words: the same seed and words draw the same, whatever was drawn elsewhere.
func (s Seed) Dice(words ...any) *rand.Rand {
	h := fnv.New128a()
	_ = binary.Write(h, binary.LittleEndian, uint64(s))
	for _, word := range words {
		fmt.Fprintf(h, "\x00%v", word)
	}
	sum := h.Sum(nil)
	return rand.New(rand.NewPCG(binary.LittleEndian.Uint64(sum), binary.LittleEndian.Uint64(sum[8:])))
}

// Ordinals count what came for each key, so that the n-th request for a path draws the same in each run.
type Ordinals struct {
	// mu guards n.
	mu sync.Mutex
	n  map[string]int
}

// Next is the number of this one, from 0 on.
func (o *Ordinals) Next(key string) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.n == nil {
		o.n = map[string]int{}
	}
	n := o.n[key]
	o.n[key]++
	return n
}

// chance reports whether something happens that does so with this probability.
func chance(d *rand.Rand, p float64) bool { return d.Float64() < p }

// pick draws one of them.
func pick[T any](d *rand.Rand, of ...T) T { return of[d.IntN(len(of))] }
