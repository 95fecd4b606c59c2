// Package pattern is content for files that a reader of a part can check without having the rest: a function of
// the file's name and the place in it.
package pattern

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"os"
)

// Piece is how many bytes are made together.
const Piece = 64 << 10

// piece is the piece of that number of the file of that name.
func piece(name string, number int64) []byte {
	seed := sha256.Sum256(binary.LittleEndian.AppendUint64([]byte(name), uint64(number)))
	p := make([]byte, Piece)
	_, _ = rand.NewChaCha8(seed).Read(p) // It never fails.
	return p
}

// Fill is what the file has from the offset on.
func Fill(name string, offset int64, p []byte) {
	for done := 0; done < len(p); {
		at := offset + int64(done)
		done += copy(p[done:], piece(name, at/Piece)[at%Piece:])
	}
}

// Equal reports whether p is what the file has from the offset on.
func Equal(name string, offset int64, p []byte) bool {
	want := make([]byte, len(p))
	Fill(name, offset, want)
	return bytes.Equal(p, want)
}

// Reader reads a file of that size from its beginning.
func Reader(name string, size int64) io.Reader {
	return io.NewSectionReader(source(name), 0, size)
}

type source string

// ReadAt makes the bytes.
func (s source) ReadAt(p []byte, offset int64) (int, error) {
	Fill(string(s), offset, p)
	return len(p), nil
}

// Write makes a file of that size, whose content is that of the name.
func Write(path, name string, size int64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	// Larger writes than a section reader asks for by itself.
	if _, err := io.CopyBuffer(struct{ io.Writer }{f}, Reader(name, size), make([]byte, 1<<20)); err != nil {
		_ = f.Close()
		return err
	}
	return f.Close()
}
