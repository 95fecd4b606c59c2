// Command image builds millrace's container image, with no daemon: the static programs and the certificates of the public
// authorities, for each processor architecture, as an OCI layout and as one docker-archive an architecture. The same source makes the same
// image, bit for bit, wherever the certificates are the same.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"millrace.io/millrace/deploy/heartbeat"
	"millrace.io/millrace/deploy/image/layer"
)

// defaultTag is the name of the image where none is given; it is that of the chart.
const defaultTag = "millrace/millrace:0.1.0"

// bundles are where systems keep the certificates of the public authorities.
var bundles = []string{"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"}

// programs are what the image has. The keeper of `millrace mount` is not among them: in a pod the driver keeps.
var programs = []string{"millrace-controller", "millrace-gateway", "millrace"}

// user is whom the program runs as where a pod says nothing.
const user = "65532:65532"

type config struct {
	tag, out, roots, revision string
	architectures             []string
	layout                    bool
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Stdout, os.Args[1:]); err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(os.Stderr, "image:", err)
		}
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer, args []string) error {
	c, err := parse(args)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(c.out, 0o755); err != nil {
		return err
	}
	images := make([]v1.Image, len(c.architectures))
	for i, architecture := range c.architectures {
		fmt.Fprintf(out, "building for linux/%s, up to 2 min where nothing is built yet\n", architecture)
		stop := heartbeat.Start(out, heartbeat.Interval, func() string { return "building for linux/" + architecture })
		images[i], err = build(ctx, c, architecture)
		stop()
		if err != nil {
			return fmt.Errorf("linux/%s: %w", architecture, err)
		}
		archive := filepath.Join(c.out, "millrace-"+architecture+".tar")
		if err := layer.Archive(archive, c.tag, images[i]); err != nil {
			return err
		}
		fmt.Fprintln(out, archive)
	}
	if !c.layout {
		return nil
	}
	dir := filepath.Join(c.out, "oci")
	index := indexOf(c.architectures, images)
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if _, err := layout.Write(dir, index); err != nil {
		return err
	}
	digest, err := index.Digest()
	fmt.Fprintln(out, dir, digest)
	return err
}

func parse(args []string) (config, error) {
	c := config{}
	var platforms string
	flags := flag.NewFlagSet("image", flag.ContinueOnError)
	flags.StringVar(&c.tag, "tag", defaultTag, "`NAME:TAG` in the docker-archives")
	flags.StringVar(&c.out, "out", "bin/image", "`DIR` for what is built")
	flags.StringVar(&c.roots, "roots", "", "`FILE` with the certificates of the authorities to trust (default this machine's)")
	flags.StringVar(&c.revision, "revision", "", "`ID` of the source, for a label")
	flags.StringVar(&platforms, "platforms", "linux/amd64,linux/arm64", "`LIST` of platforms to build for")
	flags.BoolVar(&c.layout, "oci", true, "write the OCI layout too")
	if err := flags.Parse(args); err != nil {
		return c, err
	}
	if flags.NArg() > 0 {
		return c, fmt.Errorf("argument %q: there are only flags", flags.Arg(0))
	}
	for p := range strings.SplitSeq(platforms, ",") {
		if p != "linux/amd64" && p != "linux/arm64" {
			return c, fmt.Errorf("-platforms %q: linux/amd64 and linux/arm64 are built", p)
		}
		c.architectures = append(c.architectures, strings.TrimPrefix(p, "linux/"))
	}
	if c.roots == "" {
		for _, b := range bundles {
			if _, err := os.Stat(b); err == nil {
				c.roots = b
				return c, nil
			}
		}
		return c, errors.New("this machine has no certificates of authorities: install ca-certificates, or name a file with -roots")
	}
	return c, nil
}

// build makes the image of one architecture.
func build(ctx context.Context, c config, architecture string) (v1.Image, error) {
	dir, err := os.MkdirTemp("", "millrace-image-*")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	// What git says is a label, not a part of the programs: the same source is the same program in any checkout.
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", dir+"/")
	for _, program := range programs {
		cmd.Args = append(cmd.Args, "millrace.io/millrace/cmd/"+program)
	}
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+architecture, "GOFLAGS=")
	if text, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("go build: %w: %s", err, strings.TrimSpace(string(text)))
	}
	// The programs are what changes, and come last.
	roots, err := layer.New([]layer.File{
		layer.Copy("/etc/ssl/certs/ca-certificates.crt", 0o644, c.roots),
		layer.Text("/etc/passwd", 0o644, "root:x:0:0:root:/:/sbin/nologin\nmillrace:x:65532:65532:millrace:/:/sbin/nologin\n"),
		layer.Text("/etc/group", 0o644, "root:x:0:\nmillrace:x:65532:\n"),
		layer.Text("/etc/nsswitch.conf", 0o644, "hosts: files dns\n"),
		layer.Dir("/tmp", 0o777|os.ModeSticky),
	})
	if err != nil {
		return nil, err
	}
	layers := []v1.Layer{roots}
	for _, program := range programs {
		l, err := layer.New([]layer.File{layer.Copy("/usr/bin/"+program, 0o755, filepath.Join(dir, program))})
		if err != nil {
			return nil, err
		}
		layers = append(layers, l)
	}
	labels := map[string]string{
		"org.opencontainers.image.title":       "millrace",
		"org.opencontainers.image.description": "Remote data at memory speed for pods: controller, CSI driver, node agent and gateway",
		"org.opencontainers.image.licenses":    "Apache-2.0",
	}
	if _, version, found := strings.Cut(c.tag[strings.LastIndex(c.tag, "/")+1:], ":"); found {
		labels["org.opencontainers.image.version"] = version
	}
	if c.revision != "" {
		labels["org.opencontainers.image.revision"] = c.revision
	}
	return layer.Image(architecture, v1.Config{
		Entrypoint: []string{"/usr/bin/millrace"}, User: user, WorkingDir: "/", Labels: labels,
		Env: []string{"PATH=/usr/bin", "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt"},
	}, layers...)
}

// indexOf is what a registry shows for all architectures.
func indexOf(architectures []string, images []v1.Image) v1.ImageIndex {
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for i, image := range images {
		index = mutate.AppendManifests(index, mutate.IndexAddendum{
			Add:        image,
			Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: architectures[i]}},
		})
	}
	return index
}
