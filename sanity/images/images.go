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

	"millrace.io/millrace/deploy"
	"millrace.io/millrace/deploy/image/build"
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

// plan is what an image consists of: its configuration and the files of its layers, the lowest first.
type plan struct {
	config v1.Config
	layers [][]layer.File
}

// recipe tells of what an image of that name consists.
type recipe struct {
	tag  string
	make func(ctx context.Context) (plan, error)
}

// Build writes an archive of each image into dir, and returns their paths: that of the holder of a pod's namespaces,
// busybox, nginx, and Alluxio, millrace and its keeper by the names that the chart's defaults have. It says what it
// builds; what it has built before it takes from the user's cache.
func Build(ctx context.Context, dir string, log Log) ([]string, error) {
	millraceTag, keeperTag, alluxioTag, err := deploy.Images()
	if err != nil {
		return nil, err
	}
	archives, err := write(ctx, dir, log, append(small, recipe{Nginx, nginx}, recipe{alluxioTag, alluxio})...)
	if err != nil {
		return nil, err
	}
	for _, o := range []struct {
		tag  string
		kind build.Kind
	}{{millraceTag, build.Millrace}, {keeperTag, build.Keeper}} {
		archive, err := own(ctx, dir, o.tag, o.kind, log)
		if err != nil {
			return nil, err
		}
		archives = append(archives, archive)
	}
	return archives, nil
}

// small are what every cluster has.
var small = []recipe{{kubenodes.PauseImage, pause}, {Busybox, busybox}}

// Small is Build without nginx, Alluxio and millrace.
func Small(ctx context.Context, dir string) ([]string, error) {
	return write(ctx, dir, func(string, ...any) {}, small...)
}

func pause(ctx context.Context) (plan, error) {
	return programOf(ctx, "millrace.io/millrace/sanity/kubenodes/pause")
}

// programOf is an image with a static program of this module.
func programOf(ctx context.Context, pkg string) (plan, error) {
	dir, err := os.MkdirTemp("", "millrace-program-*")
	if err != nil {
		return plan{}, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	name := filepath.Base(pkg)
	built := filepath.Join(dir, name)
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", built, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return plan{}, fmt.Errorf("%w: %s", err, out)
	}
	content, err := os.ReadFile(built)
	return single(v1.Config{Entrypoint: []string{"/" + name}},
		layer.File{Path: "/" + name, Mode: 0o755, Content: content}), err
}

// single is an image of one layer.
func single(config v1.Config, files ...layer.File) plan {
	return plan{config: config, layers: [][]layer.File{files}}
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

func busybox(ctx context.Context) (plan, error) {
	files, err := shell(ctx)
	return single(v1.Config{Cmd: []string{"sh"}, Env: []string{path}}, files...), err
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

func nginx(ctx context.Context) (plan, error) {
	program, err := found("nginx")
	if err != nil {
		return plan{}, err
	}
	types, err := os.ReadFile("/etc/nginx/mime.types")
	if err != nil {
		return plan{}, err
	}
	files, err := withLibraries(ctx, program)
	base, err2 := shell(ctx)
	if err := errors.Join(err, err2); err != nil {
		return plan{}, err
	}
	files = append(files, base...)
	files = append(files,
		layer.Text("/etc/nginx/nginx.conf", 0o644, nginxConfig),
		layer.Text("/etc/nginx/mime.types", 0o644, string(types)),
		layer.Text("/usr/share/nginx/html/index.html", 0o644, "Welcome to nginx!\n"),
		layer.Dir("/var/log/nginx", 0o755), layer.Dir("/var/lib/nginx", 0o755))
	return single(v1.Config{Cmd: []string{"nginx"}, Env: []string{path}}, files...), nil
}

// Program writes the archive of an image whose only content is a program of this module.
func Program(ctx context.Context, dir, tag, pkg string) (archive string, err error) {
	of := recipe{tag, func(ctx context.Context) (plan, error) { return programOf(ctx, pkg) }}
	archives, err := write(ctx, dir, func(string, ...any) {}, of)
	if err != nil {
		return "", err
	}
	return archives[0], nil
}
