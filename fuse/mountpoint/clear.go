package mountpoint

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"
)

// pathPatience is how long a path may take to be looked at: one that leads through a mount
// which does not answer would hang for ever.
const pathPatience = 5 * time.Second

// Clear detaches mounts of ours on dir whose process has gone, and refuses one that is
// alive.
func Clear(dir string, log *slog.Logger) error {
	for {
		source, mounted := Ours(dir)
		if !mounted {
			return nil
		}
		stale, err := IsStale(dir)
		if err != nil {
			return fmt.Errorf("the mount on %s cannot be looked at: %w", dir, err)
		}
		if !stale {
			return fmt.Errorf("%s is mounted already: it shows %s (millrace unmount %s ends that)", dir, source, dir)
		}
		log.Warn("detaching a mount whose process has gone", "dir", dir, "source", source)
		if err := Unmount(dir, true); err != nil {
			return fmt.Errorf("the stale mount on %s cannot be detached: %w", dir, err)
		}
	}
}

// Ours reports whether there is a mount of ours on dir, and what it shows. A dir that cannot
// be looked up has none.
func Ours(dir string) (source string, mounted bool) {
	on, fstype, source, err := Of(dir)
	return source, err == nil && on == dir && fstype == FSType
}

// WithoutLinksAbove resolves the symbolic links of all but the last element of the absolute
// path dir: so a mount on dir itself is not touched. Where that fails it is dir as given.
func WithoutLinksAbove(dir string) string {
	above := ""
	err := Within(dir, func() (err error) {
		above, err = filepath.EvalSymlinks(filepath.Dir(dir))
		return err
	})
	if err != nil {
		return filepath.Clean(dir)
	}
	return filepath.Join(above, filepath.Base(dir))
}

// Within runs look, which asks the file system about path, and gives up on it after pathPatience: a
// system call that waits for a dead server cannot be taken back, and its goroutine stays
// until the process ends. Nothing that look sets may be used after an error.
func Within(path string, look func() error) error {
	ended := make(chan error, 1)
	go func() { ended <- look() }()
	select {
	case err := <-ended:
		return err
	case <-time.After(pathPatience):
		return fmt.Errorf("%s does not answer: %w", path, os.ErrDeadlineExceeded)
	}
}
