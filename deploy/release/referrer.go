package main

import (
	"bytes"
	"encoding/json"
	"io"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// artifact is a file that belongs to an image.
type artifact struct {
	name      string
	mediaType types.MediaType
	content   []byte
	at        time.Time
}

// emptyConfig is the media type of the configuration of what is no image: "{}".
const emptyConfig = types.MediaType("application/vnd.oci.empty.v1+json")

// refer adds an artifact to a layout, as OCI 1.1 has it: a manifest whose subject is the image, by which a registry
// lists the artifact among the image's referrers.
func refer(to layout.Path, subject v1.Descriptor, a artifact) error {
	config, err := addBlob(to, emptyConfig, []byte("{}"))
	if err != nil {
		return err
	}
	content, err := addBlob(to, a.mediaType, a.content)
	if err != nil {
		return err
	}
	const title = "org.opencontainers.image.title"
	content.Annotations = map[string]string{title: a.name}
	annotations := map[string]string{title: a.name, "org.opencontainers.image.created": a.at.UTC().Format(time.RFC3339)}
	text, err := json.Marshal(v1.Manifest{
		SchemaVersion: 2, MediaType: types.OCIManifestSchema1, ArtifactType: string(a.mediaType),
		Config: config, Layers: []v1.Descriptor{content}, Subject: &subject, Annotations: annotations,
	})
	if err != nil {
		return err
	}
	manifest, err := addBlob(to, types.OCIManifestSchema1, text)
	if err != nil {
		return err
	}
	manifest.ArtifactType, manifest.Annotations = string(a.mediaType), annotations
	return to.AppendDescriptor(manifest)
}

// addBlob adds bytes to a layout and describes them.
func addBlob(to layout.Path, mediaType types.MediaType, content []byte) (v1.Descriptor, error) {
	digest, size, err := v1.SHA256(bytes.NewReader(content))
	if err != nil {
		return v1.Descriptor{}, err
	}
	return v1.Descriptor{MediaType: mediaType, Size: size, Digest: digest},
		to.WriteBlob(digest, io.NopCloser(bytes.NewReader(content)))
}
