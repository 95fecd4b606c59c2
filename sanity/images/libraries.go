package images

import (
	"context"
	"fmt"
	"io/fs"
	"os/exec"
	"path/filepath"
	"regexp"

	"millrace.io/millrace/deploy/image/layer"
)

var library = regexp.MustCompile(`(?m)(?:=> |^\s*)(/\S+) \(`)

// withLibraries are a program and the shared libraries that it needs, at the paths that they have here.
func withLibraries(ctx context.Context, programs ...string) ([]layer.File, error) {
	var files []layer.File
	for _, p := range programs {
		out, err := exec.CommandContext(ctx, "ldd", p).CombinedOutput()
		if err != nil {
			return nil, fmt.Errorf("ldd %s: %w: %s", p, err, out)
		}
		files = append(files, layer.Copy(p, 0o755, p))
		for _, found := range library.FindAllSubmatch(out, -1) {
			path := string(found[1])
			files = append(files, layer.Copy(path, 0o755, path))
		}
	}
	return files, nil
}

// found is a program of this machine, its links followed.
func found(program string) (string, error) {
	path, err := exec.LookPath(program)
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(path)
}

// accounts are the users and the rules of names that C libraries look for.
func accounts() []layer.File {
	return []layer.File{
		layer.Text("/etc/passwd", 0o644, "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n"),
		layer.Text("/etc/group", 0o644, "root:x:0:\nnogroup:x:65534:\n"),
		layer.Text("/etc/nsswitch.conf", 0o644, "hosts: files dns\n"),
		layer.Dir("/root", 0o700), layer.Dir("/proc", 0o555), layer.Dir("/sys", 0o555), layer.Dir("/dev", 0o755),
		layer.Dir("/tmp", 0o777|fs.ModeSticky), layer.Dir("/var/run", 0o755),
	}
}
