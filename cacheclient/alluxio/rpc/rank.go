package rpc

import (
	"cmp"
	"encoding/binary"
	"hash/fnv"
	"slices"
)

// Rank orders the workers by how much each is the one to hold a block: rendezvous hashing, which every agent does
// alike, so that a block that nobody has is read from the source once and not once for each node. A worker that
// comes or goes changes the first place of its own blocks only.
func Rank(workers []*Worker, block int64) []*Worker {
	type scored struct {
		w     *Worker
		score uint64
	}
	ranked := make([]scored, 0, len(workers))
	for _, w := range workers {
		ranked = append(ranked, scored{w, score(w.Addr(), block)})
	}
	slices.SortFunc(ranked, func(a, b scored) int {
		return cmp.Or(cmp.Compare(b.score, a.score), cmp.Compare(a.w.Addr(), b.w.Addr()))
	})
	out := make([]*Worker, len(ranked))
	for i, r := range ranked {
		out[i] = r.w
	}
	return out
}

// score is how well a worker and a block fit.
func score(addr string, block int64) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(addr))
	_, _ = h.Write(binary.LittleEndian.AppendUint64(nil, uint64(block)))
	// FNV alone leaves the order of similar inputs similar: the finalizer of MurmurHash3 mixes it.
	x := h.Sum64()
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}
