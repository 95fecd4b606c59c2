package cluster

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"millrace.io/millrace/sanity/session"
)

// pom names every jar with its version.
//
//go:embed pom.xml
var pom []byte

// resolveLimit bounds the fetching of some 90 MB.
const resolveLimit = 10 * time.Minute

// ErrMissing is wrapped by errors that name a program which the cluster needs and this machine lacks.
var ErrMissing = errors.New("not installed")

// Version is the version of Alluxio that pom.xml names.
func Version() (string, error) {
	var project struct {
		Version string `xml:"properties>alluxio"`
	}
	if err := xml.Unmarshal(pom, &project); err != nil {
		return "", fmt.Errorf("sanity/cluster/pom.xml: %w", err)
	}
	if project.Version == "" {
		return "", errors.New("sanity/cluster/pom.xml: properties has no element alluxio")
	}
	return project.Version, nil
}

// Java finds the Java runtime: that of JAVA_HOME, else the one in PATH.
func Java() (string, error) {
	if home := os.Getenv("JAVA_HOME"); home != "" {
		if path, err := exec.LookPath(filepath.Join(home, "bin", "java")); err == nil {
			return path, nil
		}
	}
	path, err := exec.LookPath("java")
	if err != nil {
		return "", fmt.Errorf("a Java runtime (java) is %w: run make setup as root, or install the package "+
			"default-jre-headless", ErrMissing)
	}
	return path, nil
}

// Jars returns the directory with the jars of pom.xml. The first call on a machine has Maven copy them into the user's
// cache directory, which takes a minute; two processes at once wait for each other.
func Jars(ctx context.Context) (string, error) {
	version, err := Version()
	if err != nil {
		return "", err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("the directory for Alluxio's jars: %w", err)
	}
	sum := sha256.Sum256(pom)
	dir := filepath.Join(cache, "millrace", "alluxio-"+version+"-"+hex.EncodeToString(sum[:6]))
	if complete(dir) {
		return dir, nil
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return "", fmt.Errorf("the directory for Alluxio's jars: %w", err)
	}
	// Maven's own repository does not bear two at once either.
	unlock, err := lock(ctx, filepath.Join(filepath.Dir(dir), "alluxio.lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	if complete(dir) {
		return dir, nil
	}
	return dir, resolve(ctx, dir)
}

// complete reports whether the directory is there; it gets its name when it is whole.
func complete(dir string) bool {
	info, err := os.Stat(dir)
	return err == nil && info.IsDir()
}

// resolve has Maven copy the jars into a new directory, which then gets the name dir.
func resolve(ctx context.Context, dir string) error {
	if _, err := Java(); err != nil {
		return err
	}
	if _, err := exec.LookPath("mvn"); err != nil {
		return fmt.Errorf("the program mvn (Maven), which fetches Alluxio's jars, is %w: run make setup as root, or "+
			"install the package maven", ErrMissing)
	}
	temp, err := os.MkdirTemp(filepath.Dir(dir), "resolving-")
	if err != nil {
		return fmt.Errorf("the directory for Alluxio's jars: %w", err)
	}
	defer func() { _ = os.RemoveAll(temp) }()
	project, jars := filepath.Join(temp, "pom.xml"), filepath.Join(temp, "jars")
	if err := os.WriteFile(project, pom, 0o600); err != nil {
		return err
	}
	out, err := session.Run(ctx, resolveLimit, "mvn", "-B", "-q", "-C", "-f", project, "dependency:copy",
		"-DoutputDirectory="+jars)
	if err != nil {
		return fmt.Errorf("the jars of sanity/cluster/pom.xml: %w%s", err, firstError(out.Stdout))
	}
	if err := os.Chmod(jars, 0o755); err != nil {
		return err
	}
	if err := os.Rename(jars, dir); err != nil {
		return fmt.Errorf("the directory for Alluxio's jars: %w", err)
	}
	return nil
}

// firstError is ": " and the first error that Maven printed, "" without one.
func firstError(output string) string {
	for line := range strings.Lines(output) {
		if text, found := strings.CutPrefix(line, "[ERROR] "); found {
			return ": " + strings.TrimSpace(text)
		}
	}
	return ""
}

// lock takes the lock file of that name, and waits while another process has it.
func lock(ctx context.Context, path string) (unlock func(), err error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("the lock of Alluxio's jars: %w", err)
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { _ = file.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			_ = file.Close()
			return nil, fmt.Errorf("the lock of Alluxio's jars: %w", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			_ = file.Close()
			return nil, fmt.Errorf("another process resolves Alluxio's jars: %w", context.Cause(ctx))
		}
	}
}
