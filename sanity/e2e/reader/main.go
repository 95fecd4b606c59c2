// Command reader reads the files of a directory again and again, in pieces at random places, and checks every byte by
// the file's name (sanity/pattern). It runs in pods of the walkthrough while parts of the cluster fail. Each second it
// prints a line of JSON with what it has seen in that second; an error is a line of its own.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"millrace.io/millrace/sanity/pattern"
)

// Second is what a reader has seen in one second.
type Second struct {
	At      time.Time `json:"at"`
	Reads   int       `json:"reads"`
	Errors  int       `json:"errors"`
	Longest float64   `json:"longest"` // the longest read, opening included, in seconds
	Error   string    `json:"error,omitempty"`
}

// size of a read.
const size = 256 << 10

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "reader takes a directory")
		os.Exit(1)
	}
	out := json.NewEncoder(os.Stdout)
	second := Second{At: time.Now()}
	for {
		begin := time.Now()
		err := readOne(os.Args[1])
		second.Reads++
		second.Longest = max(second.Longest, time.Since(begin).Seconds())
		if err != nil {
			second.Errors++
			second.Error = err.Error()
		}
		if time.Since(second.At) >= time.Second {
			second.At = time.Now()
			_ = out.Encode(second)
			second = Second{At: second.At}
		}
		// Many small reads, on a machine with other work.
		time.Sleep(5 * time.Millisecond)
	}
}

// readOne reads one piece of one file.
func readOne(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	if len(entries) == 0 {
		return errors.New(dir + " is empty")
	}
	name := entries[rand.IntN(len(entries))].Name()
	f, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	offset := rand.Int64N(max(1, info.Size()-size))
	p := make([]byte, min(size, info.Size()-offset))
	if n, err := f.ReadAt(p, offset); err != nil && !errors.Is(err, io.EOF) || n < len(p) {
		return fmt.Errorf("%s at %d: %d of %d bytes: %w", name, offset, n, len(p), err)
	}
	if !pattern.Equal(name, offset, p) {
		return fmt.Errorf("%s at %d: wrong bytes", name, offset)
	}
	// The next one asks the file system again, and not the page cache.
	return unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
}
