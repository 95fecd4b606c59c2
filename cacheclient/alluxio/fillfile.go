package alluxio

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"millrace.io/millrace/cacheclient/alluxio/rpc"
)

// create has the worker make the file.
func (fl *fill) create(w *rpc.Worker) error {
	ctx, cancel := context.WithTimeout(fl.ctx, openPatience)
	defer cancel()
	block, err := w.CreateLocal(ctx, fl.id, fl.length)
	if err != nil {
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			w.Stalled()
		}
		return err
	}
	fl.block = block
	file, err := openTemporary(block.Path, fl.id, fl.length)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			fl.c.local.hide(w)
		}
		return err
	}
	fl.mu.Lock()
	defer fl.mu.Unlock()
	if len(fl.early) > 0 {
		// Before anybody can read from the file.
		if _, err := file.file.WriteAt(fl.early, int64(fl.head.first)*pieceSize); err != nil {
			file.release()
			return fmt.Errorf("write to the tier: %w", err)
		}
	}
	fl.file, fl.early = file, nil
	close(fl.ready)
	return nil
}

// openTemporary opens the file that a worker made for a block, and gives it its length. The path comes from the worker:
// only what looks like a temporary block is written to.
func openTemporary(path string, id, length int64) (*blockFile, error) {
	if !filepath.IsAbs(path) || strings.Contains(path, "\x00") ||
		!strings.HasSuffix(filepath.Base(path), "-"+strconv.FormatInt(id, 10)) {
		return nil, fmt.Errorf("%w: the worker names %q for a new block %d", errMisnamed, path, id)
	}
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && (!st.Mode().IsRegular() || st.Size() != 0) {
		err = fmt.Errorf("%w: the new block %q has %d bytes already", errDamaged, path, st.Size())
	}
	if err == nil {
		err = f.Truncate(length)
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return mapBlockFile(f, id, length)
}
