package liar

import (
	"bytes"
	"encoding/binary"
	"hash/fnv"
)

// Fill writes the bytes that a content has from the offset on. A content is a function of its name and the place, as in
// sanity/pattern, but a page of it costs a page: readers compare each page with each version.
func Fill(content string, offset int64, p []byte) {
	h := fnv.New64a()
	_, _ = h.Write([]byte(content))
	key := h.Sum64()
	var word [8]byte
	for done := 0; done < len(p); {
		at := offset + int64(done)
		binary.LittleEndian.PutUint64(word[:], mix(key+uint64(at/8)))
		if in := int(at % 8); in != 0 || len(p)-done < 8 {
			done += copy(p[done:], word[in:])
			continue
		}
		copy(p[done:], word[:])
		done += 8
	}
}

// mix is the step of splitmix64.
func mix(x uint64) uint64 {
	x *= 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// holds reports whether p is what the content has from the offset on. The room is scratch of at least its length.
func holds(content string, offset int64, p, room []byte) bool {
	// Other contents differ at once.
	if few := min(len(p), 64); few < len(p) && !holds(content, offset, p[:few], room) {
		return false
	}
	Fill(content, offset, room[:len(p)])
	return bytes.Equal(p, room[:len(p)])
}
