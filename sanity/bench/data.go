package main

import (
	"bufio"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"github.com/dustin/go-humanize"
	"golang.org/x/sys/unix"
)

const (
	// streams is how many files the memory case reads at once; the other cases read the first.
	streams = 4
	// filesPerDir is how the tree of ls-warm is cut up.
	filesPerDir = 1000
)

// dataAge is how old the files are made: data that is read again and again has been there for a while, and a
// cache may ask more often about what changed a moment ago.
const dataAge = 30 * 24 * time.Hour

// bigName is the name of the i-th large file.
func bigName(i int) string { return fmt.Sprintf("big-%d.bin", i) }

// makeData writes what the cases read below dir: large random files in big, and a tree
// of small ones in many.
func makeData(cfg settings, dir string) error {
	big, many := filepath.Join(dir, "big"), filepath.Join(dir, "many")
	for _, d := range []string{big, many} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return err
		}
	}
	count := 1
	if cfg.wants("memory") {
		count = streams
	}
	for i := range count {
		if err := writeRandom(filepath.Join(big, bigName(i)), cfg.size, uint64(i)); err != nil {
			return err
		}
	}
	if cfg.wants("ls-warm") {
		if err := makeTree(many, cfg.files); err != nil {
			return err
		}
	}
	return age(dir)
}

// age makes everything below dir old.
func age(dir string) error {
	old := time.Now().Add(-dataAge)
	return filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Chtimes(path, old, old)
	})
}

// makeTree writes the small files.
func makeTree(many string, files int) error {
	for i := range files {
		d := filepath.Join(many, fmt.Sprintf("dir-%03d", i/filesPerDir))
		if i%filesPerDir == 0 {
			if err := os.Mkdir(d, 0o755); err != nil {
				return err
			}
		}
		if err := os.WriteFile(filepath.Join(d, fmt.Sprintf("file-%06d", i)), fmt.Appendf(nil, "%d\n", i),
			0o644); err != nil {
			return err
		}
	}
	return nil
}

// writeRandom writes a file of random bytes, the same ones in every run.
func writeRandom(name string, size int64, seed uint64) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(f, 1<<20)
	var key [32]byte
	key[0] = byte(seed)
	_, err = io.CopyN(w, rand.NewChaCha8(key), size)
	if flushErr := w.Flush(); err == nil {
		err = flushErr
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	return err
}

// checkRoom fails if the files and the tiers that hold copies of them do not fit into memory.
func checkRoom(cfg settings, dir string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return err
	}
	need := uint64(cfg.size)*(1+4) + 1<<30
	if cfg.wants("memory") {
		need = uint64(cfg.size)*(streams+streams) + 1<<30
	}
	if room := st.Bavail * uint64(st.Bsize); room < need {
		return fmt.Errorf("%s has room for %s and %s are needed; a smaller -size needs less", dir,
			humanize.IBytes(room), humanize.IBytes(need))
	}
	return nil
}
