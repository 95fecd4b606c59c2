// Package sweep removes from a node what the workers of a Dataset left in the directories of their tiers.
//
// A worker that ends, or whose node went down, leaves blocks behind. What is removed is DIR/NAMESPACE/NAME, and then
// DIR/NAMESPACE unless something else is in it. Workers may run as any user, and what is in these directories is
// theirs: so no symbolic link is followed, and no other file system entered. What is gone already is no error, for two
// sweeps may meet.
package sweep

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"regexp"
	"syscall"
)

// atOnce is how many names of a directory are read at a time.
const atOnce = 1024

// part is what the name of a namespace or of a Dataset looks like.
var part = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`)

// Check returns an error where a namespace and a name are not those of a Dataset.
func Check(namespace, name string) error {
	for _, p := range []string{namespace, name} {
		if !part.MatchString(p) {
			return fmt.Errorf("%q is not the name of a namespace or of a Dataset; accepted are lower-case letters, "+
				"digits and hyphens", p)
		}
	}
	return nil
}

// Remove removes what the workers of a Dataset left in the directory dir of a tier.
func Remove(dir, namespace, name string) error {
	if err := Check(namespace, name); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	fi, err := root.Lstat(namespace)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case !fi.IsDir():
		return fmt.Errorf("%s/%s is no directory", dir, namespace)
	}
	s := sweeper{root: root, device: deviceOf(fi)}
	if err := s.remove(path.Join(namespace, name)); err != nil {
		return fmt.Errorf("%s: %w", dir, err)
	}
	if err := root.Remove(namespace); err != nil && !errors.Is(err, syscall.ENOTEMPTY) &&
		!errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: %w", dir, err)
	}
	return nil
}

// sweeper removes trees below a root, on one file system.
type sweeper struct {
	root   *os.Root
	device uint64
}

// remove removes a name, with all that is in it.
func (s *sweeper) remove(name string) error {
	fi, err := s.root.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case fi.IsDir() && deviceOf(fi) != s.device:
		return fmt.Errorf("%s is another file system, and stays", name)
	case fi.IsDir():
		if err := s.empty(name); err != nil {
			return err
		}
	}
	if err := s.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// empty removes what is in a directory. Names are read anew until there are none, as some may be passed over while
// others are removed.
func (s *sweeper) empty(dir string) error {
	for {
		names, err := s.names(dir)
		if err != nil || len(names) == 0 {
			return err
		}
		for _, n := range names {
			if err := s.remove(path.Join(dir, n)); err != nil {
				return err
			}
		}
	}
}

// names are the first names of a directory; none where it is gone.
func (s *sweeper) names(dir string) ([]string, error) {
	f, err := s.root.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	names, err := f.Readdirnames(atOnce)
	if errors.Is(err, io.EOF) || errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return names, err
}

// deviceOf is the file system that a file is on.
func deviceOf(fi fs.FileInfo) uint64 {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		return st.Dev
	}
	return 0
}
