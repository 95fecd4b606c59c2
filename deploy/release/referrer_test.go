package main

import (
	"io"
	"log/slog"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"millrace.io/millrace/deploy/image/build"
	"millrace.io/millrace/deploy/image/layer"
)

// TestReferrer attaches a file to an image in a layout, pushes both to a registry, and has the registry tell what
// refers to the image.
func TestReferrer(t *testing.T) {
	l, err := layer.New([]layer.File{layer.Text("/x", 0o644, "x")})
	if err != nil {
		t.Fatal(err)
	}
	image, err := layer.Image("amd64", time.Time{}, v1.Config{}, l)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "oci")
	to, err := layout.Write(dir, empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	if err := to.AppendIndex(build.Index([]string{"amd64"}, []v1.Image{image})); err != nil {
		t.Fatal(err)
	}
	bom := filepath.Join(t.TempDir(), "millrace"+bomSuffix)
	write(t, bom, `{"bomFormat": "CycloneDX"}`)
	r := &release{source: source{at: time.Unix(1700000000, 0)}}
	if err := r.attach(to, image, bom); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(registry.New(registry.WithReferrersSupport(true),
		registry.Logger(slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo))))
	defer server.Close()
	push(t, dir, strings.TrimPrefix(server.URL, "http://"))

	digest, err := image.Digest()
	if err != nil {
		t.Fatal(err)
	}
	subject, err := name.NewDigest(strings.TrimPrefix(server.URL, "http://") + "/millrace/millrace@" + digest.String())
	if err != nil {
		t.Fatal(err)
	}
	index, err := remote.Referrers(subject)
	if err != nil {
		t.Fatal(err)
	}
	list, err := index.IndexManifest()
	if err != nil || len(list.Manifests) != 1 {
		t.Fatalf("%+v, %v", list, err)
	}
	attached, err := remote.Image(subject.Digest(list.Manifests[0].Digest.String()))
	if err != nil {
		t.Fatal(err)
	}
	m, err := attached.Manifest()
	if err != nil || m.ArtifactType != "application/vnd.cyclonedx+json" || m.Subject.Digest != digest {
		t.Errorf("%+v, %v", m, err)
	}
	// Registries tell the manifest's annotations in their lists, and tools the layer's name where they write it.
	listed := list.Manifests[0].Annotations
	for _, annotations := range []map[string]string{listed, m.Annotations, m.Layers[0].Annotations} {
		if annotations["org.opencontainers.image.title"] != filepath.Base(bom) {
			t.Errorf("the title is missing: %v", annotations)
		}
	}
	layers, err := attached.Layers()
	if err != nil || len(layers) != 1 {
		t.Fatal(len(layers), err)
	}
	content, err := layers[0].Compressed()
	if err != nil {
		t.Fatal(err)
	}
	defer content.Close()
	if text, err := io.ReadAll(content); err != nil || string(text) != `{"bomFormat": "CycloneDX"}` {
		t.Errorf("%s, %v", text, err)
	}
}

// push sends everything in a layout to a registry.
func push(t *testing.T, dir, host string) {
	t.Helper()
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	all, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range all.Manifests {
		to, err := name.NewDigest(host + "/millrace/millrace@" + d.Digest.String())
		if err != nil {
			t.Fatal(err)
		}
		if d.MediaType == types.OCIImageIndex {
			images, err := index.ImageIndex(d.Digest)
			if err == nil {
				err = remote.WriteIndex(to, images)
			}
			if err != nil {
				t.Fatal(err)
			}
			continue
		}
		artifact, err := index.Image(d.Digest)
		if err == nil {
			err = remote.Write(to, artifact)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
