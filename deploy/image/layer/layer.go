// Package layer makes container images out of files, with no daemon: the same files always make the same image, bit for
// bit.
package layer

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/google/renameio/v2"
)

// epoch is the time of all files, and of images that are given none: when something was built is no part of what it is,
// and a layer stays what it is from one commit to the next.
var epoch = time.Unix(0, 0).UTC()

// File is one entry of an image. Path is absolute.
type File struct {
	Path string
	Mode fs.FileMode // with fs.ModeDir for a directory and fs.ModeSymlink for a link
	// Content is of a file that is written here, From the path of one that is copied. Link is where a link leads.
	Content []byte
	From    string
	Link    string
}

// Text is a file with that content.
func Text(path string, mode fs.FileMode, content string) File {
	return File{Path: path, Mode: mode, Content: []byte(content)}
}

// Dir is a directory.
func Dir(path string, mode fs.FileMode) File { return File{Path: path, Mode: mode | fs.ModeDir} }

// Copy is a file of this machine.
func Copy(path string, mode fs.FileMode, from string) File {
	return File{Path: path, Mode: mode, From: from}
}

// Link is a symbolic link.
func Link(path, to string) File { return File{Path: path, Mode: 0o777 | fs.ModeSymlink, Link: to} }

// Tree are the files below a directory of this machine for which keep is true, at the path to.
func Tree(from, to string, keep func(path string) bool) ([]File, error) {
	var files []File
	err := filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rest := strings.TrimPrefix(path, from)
		if rest != "" && !keep(rest) {
			if e.IsDir() {
				return filepath.SkipDir
			}
			return nil
		}
		at := filepath.Join(to, rest)
		switch info, err := e.Info(); {
		case err != nil:
			return err
		case e.IsDir():
			files = append(files, Dir(at, info.Mode().Perm()))
		case e.Type()&fs.ModeSymlink != 0:
			link, err := os.Readlink(path)
			if err != nil {
				return err
			}
			files = append(files, Link(at, link))
		case e.Type().IsRegular():
			files = append(files, Copy(at, info.Mode().Perm(), path))
		}
		return nil
	})
	return files, err
}

// New is a layer with the files, all of them root's, and the directories that lead to them. Of two with one path the
// first counts.
func New(files []File, options ...tarball.LayerOption) (v1.Layer, error) {
	var buffer bytes.Buffer
	if err := Tar(&buffer, files, epoch); err != nil {
		return nil, err
	}
	text := buffer.Bytes()
	return tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(text)), nil },
		append([]tarball.LayerOption{tarball.WithMediaType(types.OCILayer), tarball.WithCompressedCaching},
			options...)...)
}

// Sum is a checksum of what a layer with the files would contain, which costs less than to make it.
func Sum(files []File) (string, error) {
	h := sha256.New()
	if err := Tar(h, files, epoch); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// Tar writes a tar file with the files, as New has them, all of that time.
func Tar(to io.Writer, files []File, at time.Time) error {
	w := tar.NewWriter(to)
	for _, f := range complete(files) {
		if err := write(w, f, at); err != nil {
			return fmt.Errorf("%s: %w", f.Path, err)
		}
	}
	return w.Close()
}

// complete sorts the files and adds the directories that lead to them.
func complete(files []File) []File {
	byPath := map[string]File{}
	for _, f := range files {
		f.Path = filepath.Clean(f.Path)
		if _, there := byPath[f.Path]; !there && f.Path != "/" {
			byPath[f.Path] = f
		}
	}
	for _, f := range files {
		for dir := filepath.Dir(filepath.Clean(f.Path)); dir != "/"; dir = filepath.Dir(dir) {
			if _, there := byPath[dir]; !there {
				byPath[dir] = Dir(dir, 0o755)
			}
		}
	}
	all := make([]File, 0, len(byPath))
	for _, f := range byPath {
		all = append(all, f)
	}
	slices.SortFunc(all, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	return all
}

func write(w *tar.Writer, f File, at time.Time) error {
	h := &tar.Header{
		Name: strings.TrimPrefix(f.Path, "/"), Mode: int64(f.Mode.Perm()), ModTime: at,
		Format: tar.FormatPAX,
	}
	if f.Mode&fs.ModeSticky != 0 {
		h.Mode |= 0o1000
	}
	switch {
	case f.Mode.IsDir():
		h.Typeflag, h.Name = tar.TypeDir, h.Name+"/"
		return w.WriteHeader(h)
	case f.Mode&fs.ModeSymlink != 0:
		h.Typeflag, h.Linkname = tar.TypeSymlink, f.Link
		return w.WriteHeader(h)
	}
	content := f.Content
	if f.From != "" {
		var err error
		if content, err = os.ReadFile(f.From); err != nil {
			return err
		}
	}
	h.Typeflag, h.Size = tar.TypeReg, int64(len(content))
	if err := w.WriteHeader(h); err != nil {
		return err
	}
	_, err := w.Write(content)
	return err
}

// Image puts layers together, the lowest first, for a processor architecture of Linux. It was created at that time.
func Image(architecture string, created time.Time, config v1.Config, layers ...v1.Layer) (v1.Image, error) {
	base := mutate.MediaType(empty.Image, types.OCIManifestSchema1)
	base = mutate.ConfigMediaType(base, types.OCIConfigJSON)
	image, err := mutate.AppendLayers(base, layers...)
	if err != nil {
		return nil, err
	}
	file, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	if created.IsZero() {
		created = epoch
	}
	file = file.DeepCopy()
	file.Architecture, file.OS, file.Config, file.History = architecture, "linux", config, nil
	file.Created = v1.Time{Time: created.UTC()}
	return mutate.ConfigFile(image, file)
}

// Archive writes an image under a tag as a docker-archive, which docker load, podman load and ctr images import take.
func Archive(path, tag string, image v1.Image) error {
	reference, err := name.NewTag(tag, name.WithDefaultTag("latest"))
	if err != nil {
		return fmt.Errorf("tag %q: %w", tag, err)
	}
	f, err := renameio.NewPendingFile(path, renameio.WithPermissions(0o644))
	if err != nil {
		return err
	}
	defer func() { _ = f.Cleanup() }()
	if err := tarball.Write(reference, image, f); err != nil {
		return err
	}
	return f.CloseAtomicallyReplace()
}
