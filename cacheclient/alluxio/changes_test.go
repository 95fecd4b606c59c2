package alluxio

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/sanity/pace"
)

// TestAFileThatChangedIsRead replaces files, and opens them under each rule of how long what is known is believed.
func TestAFileThatChangedIsRead(t *testing.T) {
	noLeaks(t)
	c := shared.Get(t)
	for _, ttl := range []time.Duration{-1, time.Second} {
		for _, cached := range []bool{false, true} {
			t.Run(fmt.Sprintf("after %v, cached %v", ttl, cached), func(t *testing.T) {
				dir := t.TempDir()
				cfg := config(t, c, mountDir(t, c, dir, mib))
				cfg.TTL, cfg.NameTTL = ttl, ttl
				client := newClient(t, cfg)
				v := version{path: "a/changing.bin", size: 2*mib + 100}.put(t, dir)
				for number := 1; number <= 3; number++ {
					f := open(t, client, v.path)
					mustRead(t, f, v, mib)
					if cached {
						if err := client.Warm(t.Context(), v.path, nil); err != nil {
							t.Fatal(err)
						}
					}
					next := version{path: v.path, number: number, size: v.size}.put(t, dir)
					if ttl > 0 {
						time.Sleep(ttl + 100*time.Millisecond)
					}
					g := openOther(t, client, v.path, f.Info().ID)
					mustRead(t, g, next, mib)
					// Who has the old one gets its bytes or an error, and no mix.
					if _, err := readAll(t.Context(), f, v, 100_000, nil); err != nil &&
						!errors.Is(err, cacheclient.ErrStale) {
						t.Errorf("the version before, %d: %v", v.number, err)
					}
					v = next
				}
			})
		}
	}
}

// openOther opens a file that has changed since it had an identity. A client goes on with what it knows where the
// masters are slow to answer, as on a busy machine, but waits for them for 50 ms at least: such an open is tried again.
// A quicker one has to know the new version.
func openOther(t *testing.T, client *Client, path string, before uint64) cacheclient.File {
	t.Helper()
	for until := time.Now().Add(pace.Limit(30 * time.Second)); ; {
		begun := time.Now()
		f := open(t, client, path)
		took := time.Since(begun)
		if f.Info().ID != before {
			return f
		}
		if took < 50*time.Millisecond || time.Now().After(until) {
			t.Fatalf("after %v the file has the identity of the version before", took)
		}
	}
}

// TestAFileThatIsRemoved is not there for the next who looks, and comes back as another.
func TestAFileThatIsRemoved(t *testing.T) {
	noLeaks(t)
	c := shared.Get(t)
	dir := t.TempDir()
	cfg := config(t, c, mountDir(t, c, dir, mib))
	cfg.TTL, cfg.NameTTL = -1, -1
	client := newClient(t, cfg)
	v := version{path: "d/f", size: 1000}.put(t, dir)
	f := open(t, client, v.path)
	mustRead(t, f, v, mib)
	if err := os.Remove(filepath.Join(dir, v.path)); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Stat(t.Context(), v.path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("stat of what is gone: %v", err)
	}
	if page, err := client.List(t.Context(), "d", cacheclient.Cursor{}, 10, true); err != nil ||
		len(page.Entries) != 0 {
		t.Errorf("the directory lists %+v, %v", page.Entries, err)
	}
	if g, err := client.Open(t.Context(), f.Info()); err == nil {
		_ = g.Close()
		t.Error("what is gone is opened")
	}
	again := version{path: v.path, number: 1, size: 1000}.put(t, dir)
	mustRead(t, open(t, client, v.path), again, mib)
}

// TestTheShellSeesWhatWeDo compares warmth, pins and capacity with what Alluxio's own shell says.
func TestTheShellSeesWhatWeDo(t *testing.T) {
	noLeaks(t)
	c := shared.Get(t)
	dir := t.TempDir()
	path := mountDir(t, c, dir, mib)
	client := newClient(t, config(t, c, path))
	warm := version{path: "warm.bin", size: 3*mib + 1}.put(t, dir).age(t, dir)
	cold := version{path: "cold.bin", size: 3 * mib}.put(t, dir).age(t, dir)
	part := version{path: "part.bin", size: 4 * mib}.put(t, dir).age(t, dir)
	if _, err := client.List(t.Context(), "", cacheclient.Cursor{}, 10, true); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Free(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	before := client.Capacity().Used
	var last int64
	if err := client.Warm(t.Context(), warm.path, func(n int64) { last = n }); err != nil || last != warm.size {
		t.Fatalf("warm: %v, the last progress is %d", err, last)
	}
	l := layoutNow(t, client, part.path)
	f := open(t, client, part.path)
	if err := readPart(t.Context(), f, part, 2*mib, 100); err != nil {
		t.Fatal(err)
	}
	eventually(t, 10*time.Second, "the block that was touched is cached", func() bool {
		info, err := client.cluster.Block(t.Context(), l.block(2))
		return err == nil && len(info.GetLocations()) == 1
	})
	for name, want := range map[string]int32{warm.path: 100, cold.path: 0, part.path: 25} {
		got, err := client.CachedPercentage(t.Context(), name)
		if err != nil || got != want {
			t.Errorf("%s is cached by %d %%, want %d: %v", name, got, want, err)
		}
	}
	blocks, err := client.Blocks(t.Context(), part.path)
	if err != nil || len(blocks) != 4 || len(blocks[0].Where) != 0 || len(blocks[2].Where) != 1 ||
		blocks[2].Offset != 2*mib {
		t.Errorf("the blocks are %+v, %v", blocks, err)
	}
	if err := client.Pin(t.Context(), warm.path, true); err != nil {
		t.Fatal(err)
	}
	out, err := c.Shell(t.Context(), "ls", path)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{warm.path: "100%", cold.path: "0%", part.path: "25%"} {
		if line := lineOf(out, path+"/"+name); !strings.Contains(line, " "+want+" ") {
			t.Errorf("the shell says of %s: %q, want %s", name, line, want)
		}
	}
	pinned, err := c.Shell(t.Context(), "ls", "-p", path)
	if err != nil || !strings.Contains(pinned, warm.path) || strings.Contains(pinned, part.path) {
		t.Errorf("the shell lists as pinned: %v\n%s", err, pinned)
	}
	// What is pinned is not freed.
	if _, err := client.Free(t.Context(), warm.path); err == nil {
		t.Error("a pinned file was freed")
	}
	if err := client.Pin(t.Context(), warm.path, false); err != nil {
		t.Fatal(err)
	}
	f.Close()
	freed, err := client.Free(t.Context(), "")
	if err != nil || freed != warm.size+mib {
		t.Errorf("%d bytes were freed, want %d: %v", freed, warm.size+mib, err)
	}
	if used := client.Capacity().Used; used > before {
		t.Errorf("%d bytes are used, and %d were before", used, before)
	}
	report, err := c.Admin(t.Context(), "report", "capacity")
	if err != nil {
		t.Fatal(err)
	}
	capacity := client.Capacity()
	if len(capacity.Levels) != len(c.Workers()) || capacity.Quota != int64(len(c.Workers()))*512*mib {
		t.Errorf("the capacity is %+v", capacity)
	}
	for _, level := range capacity.Levels {
		if host, _, _ := strings.Cut(level.Where, ":"); !strings.Contains(report, host) || level.Quota != 512*mib ||
			!level.Local {
			t.Errorf("a level is %+v, and the shell says:\n%s", level, report)
		}
	}
}

// lineOf is the line of a listing that ends with the path.
func lineOf(out, path string) string {
	for line := range strings.Lines(out) {
		if line = strings.TrimRight(line, "\r\n"); strings.HasSuffix(line, " "+path) {
			return line
		}
	}
	return ""
}
