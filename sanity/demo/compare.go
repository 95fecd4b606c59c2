package main

import (
	"context"
	"crypto/sha256"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// verdict is what the comparison of a copy with the source found.
type verdict struct {
	// files were compared, and bytes were in them.
	files int
	bytes int64
	// wrong names each file that differs, is missing, or should not be there.
	wrong []string
}

// compare holds the sha256 of every file of the source against its copy.
func compare(ctx context.Context, source, dir string) (verdict, error) {
	var v verdict
	err := eachFile(ctx, source, func(rel string) error {
		want, n, err := checksum(filepath.Join(source, rel))
		if err != nil {
			return err
		}
		v.files++
		v.bytes += n
		if got, _, err := checksum(filepath.Join(dir, rel)); err != nil || got != want {
			v.wrong = append(v.wrong, rel)
		}
		return nil
	})
	if err != nil {
		return v, err
	}
	err = eachFile(ctx, dir, func(rel string) error {
		if _, err := os.Lstat(filepath.Join(source, rel)); err != nil {
			v.wrong = append(v.wrong, rel)
		}
		return nil
	})
	return v, err
}

// eachFile calls fn with the path of each file below the directory, relative to it.
func eachFile(ctx context.Context, dir string, fn func(rel string) error) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		return fn(rel)
	})
}

// checksum is the sha256 of a file, and its length.
func checksum(name string) (sum [sha256.Size]byte, n int64, err error) {
	f, err := os.Open(name)
	if err != nil {
		return sum, 0, err
	}
	defer func() { _ = f.Close() }()
	h := sha256.New()
	n, err = io.Copy(h, f)
	h.Sum(sum[:0])
	return sum, n, err
}
