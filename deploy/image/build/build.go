// Package build compiles millrace's programs and makes container images of them. The same source, the same modules and
// the same Go make the same programs and images, bit for bit, wherever and whenever they are built.
package build

import (
	"os"
	"path/filepath"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"millrace.io/millrace/deploy/image/layer"
	"millrace.io/millrace/deploy/notices"
)

// Module is the path of the module that the programs are of.
const Module = "millrace.io/millrace"

// Kind is an image that is made.
type Kind struct {
	// Programs are what the image has; it runs the last.
	Programs []string
	// Infix is what the names of its files have behind "millrace", Tag its tag where that is not the version's.
	Infix, Tag string
	// about is a label.
	about string
	// trusts says that its programs speak TLS with whom they are told.
	trusts bool
}

// Name is the program that the image runs.
func (k Kind) Name() string { return k.Programs[len(k.Programs)-1] }

// KeeperTag is the name of the keeper's image. Its tag is the version of the keeper's protocol (fuse/keeping) and not
// that of a release, since a keeper is not to be replaced when the others are.
const KeeperTag = "millrace/keeper:1"

// Millrace is the image of all programs but the keeper's, Keeper that of the keeper.
var (
	Millrace = Kind{
		Programs: []string{"millrace-controller", "millrace-gateway", "millrace"}, trusts: true,
		about: "Remote data at memory speed for pods: controller, CSI driver, node agent and gateway",
	}
	Keeper = Kind{
		Programs: []string{"millrace-keeper"}, Infix: "-keeper", Tag: KeeperTag,
		about: "Keeps the FUSE connections of a node while millrace's driver and agent are replaced",
	}
)

// user runs the program where a pod says nothing.
const user = "65532:65532"

// Parts are what an image is made of.
type Parts struct {
	// Kind is which image it is, Programs the directory with its compiled programs.
	Kind     Kind
	Programs string
	// Roots are the certificates of the authorities to trust, as PEM; where there are none, those of Mozilla.
	Roots    []byte
	Licences notices.Licences
	// Tag is NAME:TAG, Revision the commit; both become labels.
	Tag, Revision string
	// At is the time of the image, which is the commit's: the same commit makes the same image.
	At time.Time
}

// Image makes the image of one architecture.
func Image(architecture string, p Parts) (v1.Image, error) {
	files := []layer.File{
		layer.Text("/etc/passwd", 0o644,
			"root:x:0:0:root:/:/sbin/nologin\nmillrace:x:65532:65532:millrace:/:/sbin/nologin\n"),
		layer.Text("/etc/group", 0o644, "root:x:0:\nmillrace:x:65532:\n"),
		layer.Text("/etc/nsswitch.conf", 0o644, "hosts: files dns\n"),
		layer.Dir("/tmp", 0o777|os.ModeSticky),
	}
	env := []string{"PATH=/usr/bin"}
	if p.Kind.trusts {
		const path = "/etc/ssl/certs/ca-certificates.crt"
		roots := p.Roots
		if roots == nil {
			roots = mozilla()
		}
		files = append([]layer.File{{Path: path, Mode: 0o644, Content: roots}}, files...)
		env = append(env, "SSL_CERT_FILE="+path)
	}
	base, err := layer.New(files)
	if err != nil {
		return nil, err
	}
	licences, err := layer.New(p.Licences.Files("/usr/share/doc/millrace"))
	if err != nil {
		return nil, err
	}
	// The programs are what changes, and come last.
	layers := []v1.Layer{base, licences}
	for _, program := range p.Kind.Programs {
		l, err := layer.New([]layer.File{layer.Copy("/usr/bin/"+program, 0o755, filepath.Join(p.Programs, program))})
		if err != nil {
			return nil, err
		}
		layers = append(layers, l)
	}
	return layer.Image(architecture, p.At, v1.Config{
		Entrypoint: []string{"/usr/bin/" + p.Kind.Name()}, User: user, WorkingDir: "/", Env: env,
		Labels: labels(p.Kind, p.Tag, p.Revision),
	}, layers...)
}

func labels(kind Kind, tag, revision string) map[string]string {
	labels := map[string]string{
		"org.opencontainers.image.title":       kind.Name(),
		"org.opencontainers.image.description": kind.about,
		"org.opencontainers.image.licenses":    "Apache-2.0",
	}
	if _, version, found := strings.Cut(tag[strings.LastIndex(tag, "/")+1:], ":"); found {
		labels["org.opencontainers.image.version"] = version
	}
	if revision != "" {
		labels["org.opencontainers.image.revision"] = revision
	}
	return labels
}

// Index makes what a registry shows for all architectures.
func Index(architectures []string, images []v1.Image) v1.ImageIndex {
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for i, image := range images {
		index = mutate.AppendManifests(index, mutate.IndexAddendum{
			Add:        image,
			Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: architectures[i]}},
		})
	}
	return index
}
