package images

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"millrace.io/millrace/deploy/image/layer"
)

// Log is told what is built.
type Log func(format string, args ...any)

// write writes the archives of images into dir, those that are in the cache as links to there.
func write(ctx context.Context, dir string, log Log, recipes ...recipe) ([]string, error) {
	var archives []string
	for _, r := range recipes {
		p, err := r.make(ctx)
		if err != nil {
			return nil, fmt.Errorf("image %s: %w", r.tag, err)
		}
		key, err := p.key(r.tag)
		if err != nil {
			return nil, fmt.Errorf("image %s: %w", r.tag, err)
		}
		archive, err := cached(dir, r.tag, key, func(to string) error {
			log("image %s: building", r.tag)
			return p.write(to, r.tag)
		})
		if err != nil {
			return nil, fmt.Errorf("image %s: %w", r.tag, err)
		}
		archives = append(archives, archive)
	}
	return archives, nil
}

// key is a checksum of all that makes the archive what it is.
func (p plan) key(tag string) (string, error) {
	h := sha256.New()
	if err := json.NewEncoder(h).Encode([]any{tag, architecture, p.config}); err != nil {
		return "", err
	}
	for _, files := range p.layers {
		sum, err := layer.Sum(files)
		if err != nil {
			return "", err
		}
		fmt.Fprintln(h, sum)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// write makes the image and writes its archive.
func (p plan) write(to, tag string) error {
	var layers []v1.Layer
	for _, files := range p.layers {
		l, err := layer.New(files, quick)
		if err != nil {
			return err
		}
		layers = append(layers, l)
	}
	image, err := layer.Image(architecture, time.Time{}, p.config, layers...)
	if err != nil {
		return err
	}
	return layer.Archive(to, tag, image)
}

// cached links an archive into dir, which write makes where the user's cache has none with that key. Of each name the
// cache keeps one. Processes that ask at once wait for each other.
func cached(dir, tag, key string, write func(to string) error) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("the directory for images: %w", err)
	}
	cache = filepath.Join(cache, "millrace", "images")
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", fmt.Errorf("the directory for images: %w", err)
	}
	name := strings.NewReplacer("/", "-", ":", "-").Replace(tag)
	unlock, err := lock(filepath.Join(cache, name+".lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	kept := filepath.Join(cache, name+"@"+key[:16]+".tar")
	if _, err := os.Stat(kept); err != nil {
		old, err := filepath.Glob(filepath.Join(cache, name+"@*"))
		if err != nil {
			return "", err
		}
		for _, o := range old {
			if err := os.Remove(o); err != nil {
				return "", err
			}
		}
		if err := write(kept + ".made"); err != nil {
			return "", err
		}
		if err := os.Rename(kept+".made", kept); err != nil {
			return "", err
		}
	}
	archive := filepath.Join(dir, name+".tar")
	return archive, link(kept, archive)
}

// link makes a second name of a file, or a copy where it would be on another file system.
func link(from, to string) error {
	err := os.Link(from, to)
	if !errors.Is(err, syscall.EXDEV) {
		return err
	}
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// lock waits until no other process has the file locked.
func lock(path string) (unlock func(), err error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return func() { _ = file.Close() }, nil
}
