package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"millrace.io/millrace/sanity/serve"
	"millrace.io/millrace/sanity/session"

	"github.com/dustin/go-humanize"
)

// tree is the source: a directory, and what is in it.
type tree struct {
	dir   string
	files int
	bytes int64
	model int64 // bytes of the model alone
}

// parts of the Go toolchain's own source are the small files: enough to see, and a first copy of half a minute.
var parts = []string{"crypto", "encoding", "go", "net", "os"}

// makeSource copies parts of the Go toolchain's source tree into the work directory, and writes a model beside them.
func makeSource(s *session.Session, work string, modelSize int64) (tree, error) {
	out, err := s.Run(30*time.Second, "go", "env", "GOROOT")
	if err != nil {
		return tree{}, err
	}
	t := tree{dir: filepath.Join(work, "source"), model: modelSize}
	small := filepath.Join(t.dir, "go")
	if err := os.MkdirAll(small, 0o755); err != nil {
		return tree{}, err
	}
	goroot := filepath.Join(strings.TrimSpace(out.Stdout), "src")
	// A GOROOT may be made of symbolic links, and a web server has none. Times are kept, since what
	// changed a moment ago is not believed for long.
	args := []string{"-rL", "--preserve=timestamps"}
	for _, p := range parts {
		args = append(args, filepath.Join(goroot, p))
	}
	if _, err := s.Run(10*time.Minute, "cp", append(args, small)...); err != nil {
		return tree{}, err
	}
	if err := writeModel(filepath.Join(t.dir, modelName), modelSize); err != nil {
		return tree{}, err
	}
	err = filepath.WalkDir(t.dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		t.files++
		t.bytes += info.Size()
		return nil
	})
	fmt.Printf("source tree       %s files, %s: %s of Go's source, and a model of %s\n",
		humanize.Comma(int64(t.files)), size(t.bytes), strings.Join(parts, ", "), size(modelSize))
	return t, err
}

// tierBytes is the quota for a source: the whole of it stays below the high watermark, with room
// for what small files round up to.
func tierBytes(source int64) int64 { return source*3/2 + 256<<20 }

// tierDir makes the cache's directory in memory where there is room for it, else in the work directory.
func tierDir(s *session.Session, work string, source int64) (string, error) {
	const memory = "/dev/shm"
	var st unix.Statfs_t
	if err := unix.Statfs(memory, &st); err == nil && int64(st.Bavail)*st.Bsize > tierBytes(source) {
		if dir, err := s.TempDir(memory, "millrace-demo-"); err == nil {
			return dir, nil
		}
	}
	dir := filepath.Join(work, "tier")
	return dir, os.Mkdir(dir, 0o700)
}

// limitsText says how slow the server was made.
func limitsText(o serve.Options) string {
	text := "as fast as this machine"
	if o.BytesPerSecond > 0 {
		text = fmt.Sprintf("limited to %s/s", humanize.Bytes(uint64(o.BytesPerSecond)))
	}
	if o.DelayPerRequest > 0 {
		text += fmt.Sprintf(", %v before each response", o.DelayPerRequest)
	}
	return text
}
