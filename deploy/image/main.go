// Command image builds millrace's container images, its own and the keeper's, with no daemon: the static programs, the
// licences of what is in them and the certificates of the public authorities, for each processor architecture, as an
// OCI layout and as one docker-archive an architecture. The same source and the same Go make the same image, bit for
// bit.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"

	"millrace.io/millrace/deploy/heartbeat"
	"millrace.io/millrace/deploy/image/build"
	"millrace.io/millrace/deploy/image/layer"
	"millrace.io/millrace/deploy/notices"
)

// defaultTag is the name of the image where none is given; it is that of the chart.
const defaultTag = "millrace/millrace:0.1.0"

// kinds are the images.
var kinds = []build.Kind{build.Millrace, build.Keeper}

type config struct {
	tag, out, roots, revision string
	// only names the one image to build, by its main program; all where it is "".
	only          string
	architectures []string
	layout        bool
	at            time.Time
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
	for _, kind := range kinds {
		if c.only != "" && c.only != kind.Name() {
			continue
		}
		if err := c.write(ctx, out, kind); err != nil {
			return err
		}
	}
	return nil
}

// write builds an image for all architectures.
func (c config) write(ctx context.Context, out io.Writer, kind build.Kind) error {
	tag := cmp.Or(kind.Tag, c.tag)
	images := make([]v1.Image, len(c.architectures))
	for i, architecture := range c.architectures {
		var err error
		var part heartbeat.Part
		step := fmt.Sprintf("%d of %d, building %s for linux/%s", i+1, len(images), tag, architecture)
		fmt.Fprintln(out, step+", up to 2 min where nothing is built yet")
		stop := heartbeat.Start(out, heartbeat.Interval, func() string { return part.After(step) })
		images[i], err = c.image(ctx, kind, tag, architecture, &part)
		stop()
		if err != nil {
			return fmt.Errorf("linux/%s: %w", architecture, err)
		}
		archive := filepath.Join(c.out, "millrace"+kind.Infix+"-"+architecture+".tar")
		if err := layer.Archive(archive, tag, images[i]); err != nil {
			return err
		}
		fmt.Fprintln(out, archive)
	}
	if !c.layout {
		return nil
	}
	dir := filepath.Join(c.out, "oci"+kind.Infix)
	index := build.Index(c.architectures, images)
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
	var platforms, epoch string
	flags := flag.NewFlagSet("image", flag.ContinueOnError)
	flags.StringVar(&c.tag, "tag", defaultTag, "`NAME:TAG` in the docker-archives")
	flags.StringVar(&c.out, "out", "bin/image", "`DIR` for what is built")
	flags.StringVar(&c.roots, "roots", "",
		"`FILE` with the certificates of the authorities to trust (default those of Mozilla, of the version in go.mod)")
	flags.StringVar(&c.revision, "revision", "", "`ID` of the source, for a label")
	flags.StringVar(&platforms, "platforms", "linux/amd64,linux/arm64", "`LIST` of platforms to build for")
	flags.StringVar(&epoch, "epoch", os.Getenv("SOURCE_DATE_EPOCH"), "`SECONDS` from 1970 to the commit, for the image")
	flags.StringVar(&c.only, "only", "", "`NAME` of the one image to build: millrace or millrace-keeper")
	flags.BoolVar(&c.layout, "oci", true, "write the OCI layout too")
	if err := flags.Parse(args); err != nil {
		return c, err
	}
	if flags.NArg() > 0 {
		return c, fmt.Errorf("argument %q: there are only flags", flags.Arg(0))
	}
	if epoch != "" {
		var err error
		if c.at, err = build.ParseEpoch(epoch); err != nil {
			return c, err
		}
	}
	if c.only != "" && !slices.ContainsFunc(kinds, func(k build.Kind) bool { return k.Name() == c.only }) {
		return c, fmt.Errorf("-only %q: there are millrace and millrace-keeper", c.only)
	}
	for p := range strings.SplitSeq(platforms, ",") {
		if p != "linux/amd64" && p != "linux/arm64" {
			return c, fmt.Errorf("-platforms %q: linux/amd64 and linux/arm64 are built", p)
		}
		c.architectures = append(c.architectures, strings.TrimPrefix(p, "linux/"))
	}
	return c, nil
}

// image makes the image of one architecture.
func (c config) image(ctx context.Context, kind build.Kind, tag, architecture string, part *heartbeat.Part) (
	v1.Image, error,
) {
	dir, err := os.MkdirTemp("", "millrace-image-*")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	parts := build.Parts{Kind: kind, Programs: dir, Tag: tag, Revision: c.revision, At: c.at}
	if c.roots != "" {
		if parts.Roots, err = os.ReadFile(c.roots); err != nil {
			return nil, err
		}
	}
	stamp := build.Stamp{Revision: c.revision, At: c.at}
	if err := build.Compile(ctx, dir, architecture, stamp, part, kind.Programs...); err != nil {
		return nil, err
	}
	part.Say("licences and layers")
	if parts.Licences, err = notices.Collect(ctx, architecture, kind.Programs...); err != nil {
		return nil, err
	}
	return build.Image(architecture, parts)
}
