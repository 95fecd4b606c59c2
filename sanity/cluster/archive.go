package cluster

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"millrace.io/millrace/sanity/session"
)

// A master loads 9,000 to 13,000 classes from the jars, which is most of what its start costs. Java can map them from
// an archive instead (class data sharing): a cluster then takes half the processor time to start. The archive is made
// from the names of the classes that a small cluster loads, and fits one Java and one set of jars. Java ignores one
// that does not fit.

// archiveLimit bounds the making of the archive, beside the cluster's start.
const archiveLimit = 5 * time.Minute

// Prepare fetches the jars and makes the archive of their classes, once on a machine: minutes in all. Clusters start
// without the archive too, and slower.
func Prepare(ctx context.Context) error {
	jars, err := Jars(ctx)
	if err != nil {
		return err
	}
	java, err := Java()
	if err != nil {
		return err
	}
	archive, err := archivePath(java, jars)
	if err != nil || exists(archive) {
		return err
	}
	unlock, err := lock(ctx, filepath.Join(filepath.Dir(jars), "archive.lock"))
	if err != nil {
		return err
	}
	defer unlock()
	if exists(archive) {
		return nil
	}
	if err := makeArchive(ctx, java, jars, archive); err != nil {
		return fmt.Errorf("the archive of Alluxio's classes: %w", err)
	}
	return nil
}

// archivePath is where the archive for this Java and these jars is, or would be.
func archivePath(java, jars string) (string, error) {
	path, err := filepath.EvalSymlinks(java)
	if err != nil {
		return "", err
	}
	// An update of Java changes its virtual machine; what starts it may stay the same.
	jvm := filepath.Join(filepath.Dir(path), "..", "lib", "server", "libjvm.so")
	identity := sha256.New()
	for _, file := range []string{path, jvm} {
		if info, err := os.Stat(file); err == nil {
			fmt.Fprintln(identity, file, info.Size(), info.ModTime().UnixNano())
		}
	}
	return jars + "-" + hex.EncodeToString(identity.Sum(nil)[:6]) + ".jsa", nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// makeArchive has a cluster load its classes, and Java write them into the archive.
func makeArchive(ctx context.Context, java, jars, archive string) error {
	temp, err := os.MkdirTemp(filepath.Dir(jars), "archiving-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(temp) }()
	if err := exercise(ctx, temp); err != nil {
		return err
	}
	classes, err := mergeLists(temp)
	if err != nil {
		return err
	}
	list, result := filepath.Join(temp, "all"), filepath.Join(temp, "archive")
	if err := os.WriteFile(list, classes, 0o600); err != nil {
		return err
	}
	_, err = session.Run(ctx, archiveLimit, java, "-Xshare:dump", "-XX:+UseSerialGC", "-Xlog:disable",
		"-Xlog:all=error:stderr",
		"-XX:SharedClassListFile="+list, "-XX:SharedArchiveFile="+result, "-cp", filepath.Join(jars, "*"))
	if err != nil {
		return err
	}
	return os.Rename(result, archive)
}

// exercise starts a small cluster whose processes list the classes they load in files of the directory.
func exercise(ctx context.Context, dir string) (err error) {
	c, err := startWith(ctx, Config{Masters: 2, Workers: 1}, "-XX:DumpLoadedClassList="+filepath.Join(dir, "classes-%p"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Stop()) }()
	if err := os.WriteFile(filepath.Join(c.UFS(), "file"), []byte("text"), 0o600); err != nil {
		return err
	}
	for _, args := range [][]string{{"cat", "/file"}, {"ls", "/"}} {
		if _, err := c.Shell(ctx, args...); err != nil {
			return err
		}
	}
	_, err = c.Admin(ctx, "report", "summary")
	return err
}

// mergeLists are the lines of all lists in the directory, each once. The last one of a process that was killed
// may be torn.
func mergeLists(dir string) ([]byte, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "classes-*"))
	if err != nil {
		return nil, err
	}
	var lines []string
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(string(text)) {
			if strings.HasSuffix(line, "\n") && !strings.HasPrefix(line, "#") {
				lines = append(lines, line)
			}
		}
	}
	if len(lines) == 0 {
		return nil, fmt.Errorf("no process listed its classes: %w", io.ErrUnexpectedEOF)
	}
	slices.Sort(lines)
	var all bytes.Buffer
	for _, line := range slices.Compact(lines) {
		all.WriteString(line)
	}
	return all.Bytes(), nil
}
