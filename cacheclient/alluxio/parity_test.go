package alluxio

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/sanity/pace"
)

// shellLine is a line of the shell's ls without permissions: size, state, time, how much is cached, path.
var shellLine = regexp.MustCompile(`^\s*(\d+)\s+\S+\s+\d\d-\d\d-\d{4} \d\d:\d\d:\d\d:\d{3}\s+(DIR|\d+%) (/.*)$`)

// listed is what the shell says of a path.
type listed struct {
	dir    bool
	size   int64
	cached string
}

// TestParity compares names, sizes, cached percentages and checksums with what Alluxio's own shell says.
func TestParity(t *testing.T) {
	c := shared.Get(t)
	dir := t.TempDir()
	const blockSize = 1 << 20
	files := map[string]int{
		"plain": 10, "empty": 0, "block": blockSize, "block less one": blockSize - 1, "block more one": blockSize + 1,
		"odd/100% sure": 3, "odd/%41": 3, "odd/hash#tag": 3, "odd/-dash": 3, "odd/größe ☃": 3, "odd/quote\"'`": 3,
		"odd/a+b;c=d&e": 3,
	}
	for i := range 10_000 {
		files[fmt.Sprintf("many/%05d", i)] = 0
	}
	old := time.Now().Add(-48 * time.Hour)
	for name, size := range files {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, bytes.Repeat([]byte{byte(len(name))}, size), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(p, old, old); err != nil {
			t.Fatal(err)
		}
	}
	path := mountDir(t, c, dir, blockSize)
	cfg := config(t, c, path)
	// The masters read 10,000 names from the source first.
	cfg.Timeout = time.Minute
	client := newClient(t, cfg)
	for _, name := range []string{"block more one", "odd/größe ☃"} {
		if err := client.Warm(t.Context(), name, nil); err != nil {
			t.Fatal(err)
		}
	}
	ours := make(map[string]listed)
	walkOurs(t, client, "", ours)

	out, err := c.Shell(t.Context(), "ls", "-R", path)
	if err != nil {
		t.Fatal(err)
	}
	theirs := make(map[string]listed)
	for line := range strings.Lines(out) {
		m := shellLine.FindStringSubmatch(strings.TrimRight(line, "\n"))
		if m == nil {
			t.Errorf("the shell says %q", line)
			continue
		}
		size, _ := strconv.ParseInt(m[1], 10, 64)
		theirs[strings.TrimPrefix(m[3], path+"/")] = listed{dir: m[2] == "DIR", size: size, cached: m[2]}
	}
	if len(theirs) != len(files)+2 || len(ours) != len(theirs) {
		t.Errorf("%d files and 2 directories were made, the shell lists %d and we %d", len(files), len(theirs),
			len(ours))
	}
	for name, their := range theirs {
		our, ok := ours[name]
		if !ok || our.dir != their.dir || !our.dir && (our.size != their.size || our.cached != their.cached) {
			t.Errorf("%q: we say %+v (%v), the shell %+v", name, our, ok, their)
		}
	}
	sum, err := c.Shell(t.Context(), "checksum", path+"/block more one")
	want := md5.Sum(bytes.Repeat([]byte{byte(len("block more one"))}, blockSize+1))
	if err != nil || !strings.Contains(sum, hex.EncodeToString(want[:])) {
		t.Errorf("the shell's checksum is %q (%v), ours %x", sum, err, want)
	}
}

// walkOurs lists what the client shows, with how much the masters say is cached of each file that has bytes.
func walkOurs(t *testing.T, c *Client, dir string, into map[string]listed) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), pace.Limit(time.Minute))
	defer cancel()
	for from := (cacheclient.Cursor{}); ; {
		page, err := c.List(ctx, dir, from, 1000, true)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range page.Entries {
			into[e.Path] = listed{dir: e.Dir, size: e.Size, cached: cachedOf(ctx, t, c, e)}
			if e.Dir {
				walkOurs(t, c, e.Path, into)
			}
		}
		if from = page.Next; page.End {
			return
		}
	}
}

func cachedOf(ctx context.Context, t *testing.T, c *Client, e cacheclient.Info) string {
	t.Helper()
	switch {
	case e.Dir:
		return "DIR"
	case e.Size == 0:
		// Nothing of nothing is all of it.
		return "100%"
	}
	percent, err := c.CachedPercentage(ctx, e.Path)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%d%%", percent)
}
