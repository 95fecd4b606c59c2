package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// spareBlocks maps the files of all blocks that workers have now, every page, until release: the kernel leaves pages
// that a process has mapped where they are when the page cache is dropped. The worker's files are a tmpfs, from which
// dropping takes nothing, and would only be slower to map afterwards, for every system (freshCopy tells why).
func (r *alluxioRig) spareBlocks() error {
	for _, w := range r.cluster.Workers() {
		files, err := filepath.Glob(filepath.Join(w.TierDir, "alluxioworker", "[0-9]*"))
		if err != nil {
			return err
		}
		for _, file := range files {
			mapped, err := mapWhole(file)
			if err != nil {
				return fmt.Errorf("map the block file %s: %w", file, err)
			}
			r.spared = append(r.spared, mapped)
		}
	}
	return nil
}

// release undoes spareBlocks.
func (r *alluxioRig) release() error {
	var errs []error
	for _, mapped := range r.spared {
		errs = append(errs, unix.Munmap(mapped))
	}
	r.spared = nil
	return errors.Join(errs...)
}

// mapWhole maps a file, which must not be empty, and has the kernel enter each page.
func mapWhole(file string) ([]byte, error) {
	f, err := os.Open(filepath.Clean(file))
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	return unix.Mmap(int(f.Fd()), 0, int(st.Size()), unix.PROT_READ, unix.MAP_SHARED|unix.MAP_POPULATE)
}
