package ufs

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"

	rclone "github.com/rclone/rclone/fs"
	"github.com/rclone/rclone/fs/config/configmap"
)

// maxOptionsFile bounds an options file, in bytes.
const maxOptionsFile = 1 << 20

// readOptionsFile reads a file of options for a backend.
func readOptionsFile(ctx context.Context, name string, table rclone.Options) (configmap.Simple, error) {
	return ReadOptionsFile(ctx, name, func(option, value string) bool {
		o := table.Get(option)
		return o != nil && secretValue(o, value)
	})
}

// ReadOptionsFile reads a file with a line name = value for each option, and refuses one that shows a secret to others;
// isSecret tells which options are, with their values. Values env:NAME are not resolved.
func ReadOptionsFile(ctx context.Context, name string, isSecret func(option, value string) bool) (map[string]string,
	error,
) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	// A pipe must not block, and may be given: <(pass show ...).
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NOCTTY, 0)
	if err != nil {
		return nil, fmt.Errorf("options file %q: %w", name, bare(err))
	}
	defer func() { _ = f.Close() }()
	fi, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("options file %q: %w", name, bare(err))
	}
	if fi.IsDir() {
		return nil, fmt.Errorf("options file %q is a directory", name)
	}
	values, err := parseOptions(f)
	if err != nil {
		return nil, fmt.Errorf("options file %q: %w", name, err)
	}
	// The group may read it: so Kubernetes shows a Secret to a program that is not root.
	if !fi.Mode().IsRegular() || fi.Mode().Perm()&0o037 == 0 {
		return values, nil
	}
	for option, value := range values {
		if isSecret(option, value) && value != "" && !strings.HasPrefix(value, envPrefix) {
			return nil, fmt.Errorf("options file %q holds the secret %s and others may read it (mode %04o); chmod 600 "+
				"it", name, option, fi.Mode().Perm())
		}
	}
	return values, nil
}

// parseOptions reads lines name = value. Empty lines, and those that begin with #, are comments. Errors
// name the line and never repeat it, since it may be a secret.
func parseOptions(r io.Reader) (configmap.Simple, error) {
	values := configmap.Simple{}
	limited := &io.LimitedReader{R: r, N: maxOptionsFile + 1}
	lines := bufio.NewScanner(limited)
	lines.Buffer(make([]byte, 0, 4096), maxOptionsFile)
	number := 0
	for lines.Scan() {
		number++
		line := strings.TrimSpace(strings.TrimPrefix(lines.Text(), "\ufeff"))
		if line == "" || line[0] == '#' {
			continue
		}
		name, value, found := strings.Cut(line, "=")
		name, value = strings.TrimSpace(name), strings.TrimSpace(value)
		if !found || !optionName(name) {
			return nil, fmt.Errorf("line %d is not name = value", number)
		}
		if strings.Contains(value, "\x00") {
			return nil, fmt.Errorf("line %d has a NUL byte in the value of %s", number, name)
		}
		if _, twice := values[name]; twice {
			return nil, fmt.Errorf("line %d gives %s a second time", number, name)
		}
		values[name] = value
	}
	if err := lines.Err(); err != nil && !errors.Is(err, bufio.ErrTooLong) {
		return nil, bare(err)
	}
	if lines.Err() != nil || limited.N == 0 {
		return nil, fmt.Errorf("it is larger than %d bytes", maxOptionsFile)
	}
	return values, nil
}

func optionName(s string) bool {
	for _, c := range s {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' {
			return false
		}
	}
	return s != ""
}

// bare drops the operation and the path from an error of os: the sentence around it names them.
func bare(err error) error {
	var e *fs.PathError
	if errors.As(err, &e) {
		return e.Err
	}
	return err
}
