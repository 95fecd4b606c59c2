package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"millrace.io/millrace/deploy/image/build"
	"millrace.io/millrace/deploy/image/layer"
	"millrace.io/millrace/deploy/notices"
)

// images writes each image of each architecture as a docker-archive, and all architectures with their bills of
// materials as an OCI archive.
func (r *release) images(ctx context.Context) error {
	err := r.image(ctx, build.Millrace, "millrace/millrace:"+r.number())
	return errors.Join(err, r.image(ctx, build.Keeper, build.Keeper.Tag))
}

func (r *release) image(ctx context.Context, kind build.Kind, tag string) error {
	images := make([]v1.Image, len(architectures))
	for i, architecture := range architectures {
		r.part.Say("%d of %d", i+1, len(architectures))
		licences, err := notices.Collect(ctx, architecture, kind.Programs...)
		if err != nil {
			return err
		}
		images[i], err = build.Image(architecture, build.Parts{
			Kind: kind, Programs: r.bin(architecture), Licences: licences, Tag: tag, Revision: r.commit,
			At: r.at,
		})
		if err != nil {
			return fmt.Errorf("%s for linux/%s: %w", tag, architecture, err)
		}
		if err := layer.Archive(r.name(architecture, kind.Infix+"-image.tar"), tag, images[i]); err != nil {
			return err
		}
	}
	dir := filepath.Join(r.work, "oci"+kind.Infix)
	to, err := layout.Write(dir, empty.Index)
	if err != nil {
		return err
	}
	// By the first name skopeo and oras find the image, by the second containerd calls it.
	if err := to.AppendIndex(build.Index(architectures, images), layout.WithAnnotations(map[string]string{
		"org.opencontainers.image.ref.name": tag[strings.LastIndex(tag, ":")+1:],
		"io.containerd.image.name":          "docker.io/" + tag,
	})); err != nil {
		return err
	}
	for i, image := range images {
		for _, program := range kind.Programs {
			if err := r.attach(to, image, r.bom(architectures[i], program)); err != nil {
				return err
			}
		}
	}
	return r.archive(filepath.Join(r.dir, "millrace-"+r.version+kind.Infix+"-image-oci.tar"), dir)
}

// attach adds the bill of materials in a file to the layout, as a referrer of the image.
func (r *release) attach(to layout.Path, image v1.Image, file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	size, err := image.Size()
	if err != nil {
		return err
	}
	digest, err := image.Digest()
	if err != nil {
		return err
	}
	return refer(to, v1.Descriptor{MediaType: types.OCIManifestSchema1, Size: size, Digest: digest}, artifact{
		name: filepath.Base(file), mediaType: "application/vnd.cyclonedx+json", content: text, at: r.at,
	})
}

// archive writes a directory as a tar file.
func (r *release) archive(path, dir string) error {
	files, err := layer.Tree(dir, "/", func(string) bool { return true })
	if err != nil {
		return err
	}
	// Modes are those of the release, and not of the umask.
	for i := range files {
		if files[i].Mode.IsDir() {
			files[i].Mode = files[i].Mode.Type() | 0o755
		} else {
			files[i].Mode = 0o644
		}
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	if err := layer.Tar(f, files, r.at); err != nil {
		_ = f.Close()
		return err
	}
	return f.Close()
}
