package images

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"millrace.io/millrace/deploy/image/build"
)

// builder is the program that makes millrace's images.
const builder = "millrace.io/millrace/deploy/image"

// own writes the archive of an image of millrace's for this machine's architecture, as deploy/image makes it. Where the
// source is that of the archive in the cache, nothing is built.
func own(ctx context.Context, dir, tag string, kind build.Kind, log Log) (string, error) {
	key, err := sourceKey(ctx, tag, kind)
	if err != nil {
		return "", fmt.Errorf("image %s: %w", tag, err)
	}
	archive, err := cached(dir, tag, key, func(to string) error {
		log("image %s: building", tag)
		out, err := os.MkdirTemp(dir, "built-*")
		if err != nil {
			return err
		}
		defer func() { _ = os.RemoveAll(out) }()
		cmd := exec.CommandContext(ctx, "go", "run", builder, "-only="+kind.Name(),
			"-platforms=linux/"+architecture, "-oci=false", "-tag="+tag, "-out="+out)
		if said, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%w: %s", err, said)
		}
		return link(filepath.Join(out, "millrace"+kind.Infix+"-"+architecture+".tar"), to)
	})
	if err != nil {
		return "", fmt.Errorf("image %s: %w", tag, err)
	}
	return archive, nil
}

// sourceKey is a checksum of the source of all programs in the image and of the program that makes it.
func sourceKey(ctx context.Context, tag string, kind build.Kind) (string, error) {
	args := []string{"list", "-deps", "-json=Dir,GoFiles,EmbedFiles,Module", builder}
	for _, program := range kind.Programs {
		args = append(args, build.Module+"/cmd/"+program)
	}
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux")
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("go list: %w", err)
	}
	var files []string
	var root string
	for d := json.NewDecoder(strings.NewReader(string(out))); d.More(); {
		var p struct {
			Dir                 string
			GoFiles, EmbedFiles []string
			Module              *struct {
				Main       bool
				Dir, GoMod string
			}
		}
		if err := d.Decode(&p); err != nil {
			return "", fmt.Errorf("go list: %w", err)
		}
		if p.Module == nil || !p.Module.Main {
			continue
		}
		for _, f := range slices.Concat(p.GoFiles, p.EmbedFiles) {
			files = append(files, filepath.Join(p.Dir, f))
		}
		root = p.Module.Dir
		files = append(files, p.Module.GoMod, strings.TrimSuffix(p.Module.GoMod, ".mod")+".sum")
	}
	slices.Sort(files)
	version, err := exec.CommandContext(ctx, "go", "version").Output()
	if err != nil {
		return "", fmt.Errorf("go version: %w", err)
	}
	h := sha256.New()
	fmt.Fprintln(h, tag, architecture, string(version))
	for _, f := range slices.Compact(files) {
		// A checkout elsewhere has the same programs.
		if err := add(h, strings.TrimPrefix(f, root), f); err != nil {
			return "", err
		}
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// add writes a name and the content of a file; of one that is not there, that.
func add(to io.Writer, name, file string) error {
	content, err := os.ReadFile(file)
	if err != nil && !os.IsNotExist(err) {
		return err
	}
	fmt.Fprintln(to, name, len(content), err == nil)
	_, err = to.Write(content)
	return err
}
