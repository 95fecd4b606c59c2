package images

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"golang.org/x/sync/errgroup"

	"millrace.io/millrace/deploy/image/layer"
	"millrace.io/millrace/sanity/kubenodes"
)

// The names by which manifests call the images.
const (
	Busybox = "busybox:stable"
	Nginx   = "nginx:stable"
)

const path = "PATH=/opt/alluxio/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// quick is for archives that are read once, on this machine.
var quick = tarball.WithCompressionLevel(gzip.BestSpeed)

// recipe makes an image.
type recipe struct {
	tag  string
	make func(ctx context.Context, tag string) (v1.Image, error)
}

// Build writes an archive of each image into dir, and returns their paths: that of the holder of a pod's namespaces, busybox, nginx
// and Alluxio.
func Build(ctx context.Context, dir string) ([]string, error) {
	alluxioTag, err := Alluxio()
	if err != nil {
		return nil, err
	}
	return build(ctx, dir, recipe{kubenodes.PauseImage, pause}, recipe{Busybox, busybox}, recipe{Nginx, nginx}, recipe{alluxioTag, alluxio})
}

// Small is Build without Nginx and Alluxio.
func Small(ctx context.Context, dir string) ([]string, error) {
	return build(ctx, dir, recipe{kubenodes.PauseImage, pause}, recipe{Busybox, busybox})
}

func build(ctx context.Context, dir string, recipes ...recipe) ([]string, error) {
	archives := make([]string, len(recipes))
	var all errgroup.Group
	for i, r := range recipes {
		all.Go(func() error {
			image, err := r.make(ctx, r.tag)
			if err != nil {
				return fmt.Errorf("image %s: %w", r.tag, err)
			}
			archives[i] = filepath.Join(dir, strings.NewReplacer("/", "-", ":", "-").Replace(r.tag)+".tar")
			return layer.Archive(archives[i], r.tag, image)
		})
	}
	return archives, all.Wait()
}

func pause(ctx context.Context, _ string) (v1.Image, error) {
	return program(ctx, "millrace.io/millrace/sanity/kubenodes/pause")
}

// program is an image with a static program of this module.
func program(ctx context.Context, pkg string) (v1.Image, error) {
	dir, err := os.MkdirTemp("", "millrace-program-*")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	name := filepath.Base(pkg)
	built := filepath.Join(dir, name)
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", built, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w: %s", err, out)
	}
	return single(v1.Config{Entrypoint: []string{"/" + name}}, layer.Copy("/"+name, 0o755, built))
}

// single is an image of one layer.
func single(config v1.Config, files ...layer.File) (v1.Image, error) {
	l, err := layer.New(files, quick)
	if err != nil {
		return nil, err
	}
	return layer.Image(architecture, config, l)
}

// shell are busybox with all its names, and accounts.
func shell(ctx context.Context) ([]layer.File, error) {
	program, err := found("busybox")
	if err != nil {
		return nil, err
	}
	files, err := withLibraries(ctx, program)
	if err != nil {
		return nil, err
	}
	names, err := exec.CommandContext(ctx, program, "--list").Output()
	if err != nil {
		return nil, err
	}
	files = append(append(files, accounts()...), layer.Copy("/bin/busybox", 0o755, program))
	for name := range strings.FieldsSeq(string(names)) {
		files = append(files, layer.Link("/bin/"+name, "busybox"))
	}
	return files, nil
}

func busybox(ctx context.Context, _ string) (v1.Image, error) {
	files, err := shell(ctx)
	if err != nil {
		return nil, err
	}
	return single(v1.Config{Cmd: []string{"sh"}, Env: []string{path}}, files...)
}

// nginxConfig serves what the public image does, from the same directory.
const nginxConfig = `daemon off;
pid /tmp/nginx.pid;
error_log /dev/stderr;
user nobody nogroup;
worker_processes 1;
events { worker_connections 512; }
http {
  include mime.types;
  access_log /dev/stdout;
  sendfile on;
  server { listen 80; root /usr/share/nginx/html; autoindex on; }
}
`

func nginx(ctx context.Context, _ string) (v1.Image, error) {
	program, err := found("nginx")
	if err != nil {
		return nil, err
	}
	types, err := os.ReadFile("/etc/nginx/mime.types")
	if err != nil {
		return nil, err
	}
	files, err := withLibraries(ctx, program)
	base, err2 := shell(ctx)
	if err := errors.Join(err, err2); err != nil {
		return nil, err
	}
	files = append(files, base...)
	files = append(files,
		layer.Text("/etc/nginx/nginx.conf", 0o644, nginxConfig), layer.Text("/etc/nginx/mime.types", 0o644, string(types)),
		layer.Text("/usr/share/nginx/html/index.html", 0o644, "Welcome to nginx!\n"),
		layer.Dir("/var/log/nginx", 0o755), layer.Dir("/var/lib/nginx", 0o755))
	return single(v1.Config{Cmd: []string{"nginx"}, Env: []string{path}}, files...)
}

// Program writes the archive of an image whose only content is a program of this module.
func Program(ctx context.Context, dir, tag, pkg string) (archive string, err error) {
	image, err := program(ctx, pkg)
	if err != nil {
		return "", err
	}
	archive = filepath.Join(dir, filepath.Base(pkg)+".tar")
	return archive, layer.Archive(archive, tag, image)
}
