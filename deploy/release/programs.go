package main

import (
	"compress/gzip"
	"context"
	"errors"
	"os"
	"path"
	"path/filepath"
	"slices"

	"millrace.io/millrace/deploy/image/build"
	"millrace.io/millrace/deploy/image/layer"
	"millrace.io/millrace/deploy/notices"
)

// architectures are those that are released, all of Linux.
var architectures = []string{"amd64", "arm64"}

// tools are the programs in a tarball.
var tools = slices.Concat(build.Keeper.Programs, build.Millrace.Programs)

// name names a file of the release for an architecture.
func (r *release) name(architecture, suffix string) string {
	return filepath.Join(r.dir, r.prefix(architecture)+suffix)
}

func (r *release) prefix(architecture string) string {
	return "millrace-" + r.version + "-linux-" + architecture
}

// bin is where the programs of an architecture are.
func (r *release) bin(architecture string) string { return filepath.Join(r.work, architecture) }

// programs compiles the programs.
func (r *release) programs(ctx context.Context, architecture string) error {
	stamp := build.Stamp{Version: r.version, Revision: r.commit, At: r.at}
	return build.Compile(ctx, r.bin(architecture), architecture, stamp, &r.part, tools...)
}

// manual has the programs write their man pages and completion.
func (r *release) manual(ctx context.Context) error {
	// They are compiled as the programs are, so that most is compiled once.
	return r.follow(ctx, []string{r.epoch(), "CGO_ENABLED=0", "GOFLAGS=-trimpath -buildvcs=false"},
		"go", "run", build.Module+"/cmd/internal/manpages", filepath.Join(r.work, "manual"))
}

// tarballs writes the tarball of each architecture. Unpacked into /usr/local it is installed.
func (r *release) tarballs(ctx context.Context) error {
	for i, architecture := range architectures {
		r.part.Say("%d of %d", i+1, len(architectures))
		licences, err := notices.Collect(ctx, architecture, tools...)
		if err != nil {
			return err
		}
		root := "/" + r.prefix(architecture)
		files := licences.Files(root + "/share/doc/millrace")
		for _, program := range tools {
			files = append(files, layer.Copy(path.Join(root, "bin", program), 0o755,
				filepath.Join(r.bin(architecture), program)))
		}
		for from, to := range map[string]string{
			"man1": "man/man1", "bash": "bash-completion/completions", "zsh": "zsh/site-functions",
			"fish": "fish/vendor_completions.d",
		} {
			names, err := filepath.Glob(filepath.Join(r.work, "manual", from, "*"))
			if err != nil {
				return err
			}
			if len(names) == 0 {
				return errors.New("no files for share/" + to + " were generated")
			}
			for _, name := range names {
				files = append(files, layer.Copy(path.Join(root, "share", to, filepath.Base(name)), 0o644, name))
			}
		}
		if err := r.tarball(r.name(architecture, ".tar.gz"), files); err != nil {
			return err
		}
	}
	return nil
}

// tarball writes a compressed tar file.
func (r *release) tarball(path string, files []layer.File) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	z, err := gzip.NewWriterLevel(f, gzip.BestCompression)
	if err != nil {
		return err
	}
	if err := layer.Tar(z, files, r.at); err != nil {
		return err
	}
	return z.Close()
}
