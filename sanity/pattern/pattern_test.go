package pattern_test

import (
	"bytes"
	"io"
	"testing"

	"millrace.io/millrace/sanity/pattern"
)

func TestParts(t *testing.T) {
	const size = 3*pattern.Piece + 17
	whole, err := io.ReadAll(pattern.Reader("a", size))
	if err != nil || len(whole) != size {
		t.Fatal(len(whole), err)
	}
	for _, part := range [][2]int{
		{0, size},
		{pattern.Piece - 1, 2},
		{2 * pattern.Piece, pattern.Piece},
		{size - 1, 1},
	} {
		p := whole[part[0] : part[0]+part[1]]
		if !pattern.Equal("a", int64(part[0]), p) {
			t.Errorf("what is at %d is not what a reader has there", part[0])
		}
		if pattern.Equal("b", int64(part[0]), p) || pattern.Equal("a", int64(part[0])+1, p) {
			t.Errorf("what is at %d of one file is elsewhere too", part[0])
		}
	}
	if bytes.Equal(whole[:pattern.Piece], whole[pattern.Piece:2*pattern.Piece]) {
		t.Error("two pieces are the same")
	}
}
