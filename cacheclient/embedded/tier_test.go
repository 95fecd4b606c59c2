package embedded_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"millrace.io/millrace/cacheclient/embedded"
	"millrace.io/millrace/cacheclient/ufs"
	"millrace.io/millrace/sanity/pace"
)

const mib = 1 << 20

// fill makes n files of 1 MiB less a page, so that each costs the tier 1 MiB with its state.
func fill(t *testing.T, src *source, n int) {
	t.Helper()
	for i := range n {
		src.write(t, numbered(i), random(byte(i), mib-4096))
	}
}

func TestEvictionTakesTheLeastRecentlyUsed(t *testing.T) {
	src := newSource(t)
	fill(t, src, 12)
	c := src.client(t, embedded.Config{Levels: tier(t.TempDir(), 10*mib)})
	held := open(t, c, "f0")
	if _, err := readAll(t.Context(), held); err != nil {
		t.Fatal(err)
	}
	for i := 1; i < 9; i++ {
		readFile(t, c, numbered(i))
	}
	readFile(t, c, "f1")
	for i := 9; i < 12; i++ {
		readFile(t, c, numbered(i))
	}
	if used := c.Capacity().Used; used > 10*mib {
		t.Errorf("%d bytes used of %d", used, 10*mib)
	}
	if c.Counters().EvictedFiles == 0 {
		t.Error("nothing was evicted")
	}
	before := src.gets.Load()
	for _, name := range []string{"f0", "f1", "f11"} {
		readFile(t, c, name)
	}
	if n := src.gets.Load() - before; n != 0 {
		t.Errorf("%d requests for what was open or used last", n)
	}
	readFile(t, c, "f2")
	if src.gets.Load() == before {
		t.Error("the least recently used file was not evicted")
	}
}

func TestNextLevelTakesWhatTheFirstEvicts(t *testing.T) {
	src := newSource(t)
	fill(t, src, 20)
	c := src.client(t, embedded.Config{Levels: append(tier(t.TempDir(), 6*mib), tier(t.TempDir(), 64*mib)...)})
	for i := range 20 {
		readFile(t, c, numbered(i))
	}
	before := src.gets.Load()
	for i := range 20 {
		if got := readFile(t, c, numbered(i)); !bytes.Equal(got, random(byte(i), mib-4096)) {
			t.Errorf("file %d reads wrong from the second level", i)
		}
	}
	if n := src.gets.Load() - before; n != 0 {
		t.Errorf("%d requests to the source for files that a level has", n)
	}
	levels := c.Capacity().Levels
	if levels[0].Used > 6*mib || levels[1].Used < 12*mib {
		t.Errorf("levels %+v", levels)
	}
}

// TestFileLargerThanTheTier reads more than fits, cached and not, at any place.
func TestFileLargerThanTheTier(t *testing.T) {
	pace.Long(t)
	src := newSource(t)
	want := random(9, 40*mib+5)
	src.write(t, "big", want)
	c := src.client(t, embedded.Config{Levels: tier(t.TempDir(), 16*mib)})
	for range 2 {
		if got := readFile(t, c, "big"); !bytes.Equal(got, want) {
			t.Fatal("wrong bytes")
		}
	}
	if used := c.Capacity().Used; used > 16*mib || used < 8*mib {
		t.Errorf("%d bytes used of a tier of 16 MiB", used)
	}
}

// TestDamagedTierIsNeverServed restarts over a tier in which everything was tampered with.
func TestDamagedTierIsNeverServed(t *testing.T) {
	src := newSource(t)
	fill(t, src, 6)
	dir := t.TempDir()
	cfg := embedded.Config{Levels: tier(dir, 64*mib)}
	c := src.client(t, cfg)
	for i := range 6 {
		readFile(t, c, numbered(i))
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	damage(t, dir)
	c = src.client(t, cfg)
	for i := range 6 {
		if got := readFile(t, c, numbered(i)); !bytes.Equal(got, random(byte(i), mib-4096)) {
			t.Errorf("file %d reads wrong after its cache was damaged", i)
		}
	}
	if n := c.Counters().Discarded; n < 5 {
		t.Errorf("%d damaged files were noticed, want at least 5", n)
	}
}

// damage tampers with each cached file in another way, and adds files that mean nothing.
func damage(t *testing.T, dir string) {
	t.Helper()
	data, _ := filepath.Glob(filepath.Join(dir, "*", "*.data"))
	states, _ := filepath.Glob(filepath.Join(dir, "*", "*.state"))
	if len(data) != 6 || len(states) != 6 {
		t.Fatalf("%d data and %d state files", len(data), len(states))
	}
	flip := func(name string, at int64) {
		f, err := os.OpenFile(name, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = f.Close() }()
		b := make([]byte, 1)
		if _, err := f.ReadAt(b, at); err != nil {
			t.Fatal(err)
		}
		b[0] ^= 1
		if _, err := f.WriteAt(b, at); err != nil {
			t.Fatal(err)
		}
	}
	flip(data[0], 500_000)
	flip(states[1], 40)
	flip(states[2], 4096)
	for _, err := range []error{
		os.Truncate(data[3], 1000), os.Remove(data[4]), os.Truncate(states[5], 10),
		os.WriteFile(filepath.Join(filepath.Dir(data[0]), "nonsense.state"), []byte("?"), 0o600),
		os.WriteFile(filepath.Join(filepath.Dir(data[0]), "0123.data"), []byte("?"), 0o600),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestTwoProcessesDoNotShareATier(t *testing.T) {
	src := newSource(t)
	dir := t.TempDir()
	src.client(t, embedded.Config{Levels: tier(dir, mib)})
	refuse(t, src, embedded.Config{Levels: tier(dir, mib)}, "already serves this source")
}

// TestBeside caches a source that another process has open a second time, and finds each again.
func TestBeside(t *testing.T) {
	pace.Long(t)
	src := newSource(t)
	src.write(t, "f", random(1, mib))
	dir := t.TempDir()
	for round := range 2 {
		var open []*embedded.Cache
		for range 3 {
			c := src.client(t, embedded.Config{Levels: tier(dir, 4*mib), Beside: true})
			_ = readFile(t, c, "f")
			if got := c.Counters().BytesSource; round == 1 && got != 0 {
				t.Errorf("%d bytes came anew", got)
			}
			open = append(open, c)
		}
		for _, c := range open {
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
	names, err := os.ReadDir(dir)
	if err != nil || len(names) != 3 {
		t.Errorf("%d caches on the tier, %v", len(names), err)
	}
}

func TestLevelsAreChecked(t *testing.T) {
	src := newSource(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for want, l := range map[string]embedded.LevelConfig{
		"larger than the file system of tier directory " + dir + ": accepted are ": {Dir: dir, Quota: 1 << 60},
		"not a positive number": {Dir: dir, Quota: -1},
		"0 < low < high <= 1":   {Dir: dir, Quota: mib, High: 0.5, Low: 0.6},
		"cannot be made":        {Dir: file, Quota: mib},
	} {
		refuse(t, src, embedded.Config{Levels: []embedded.LevelConfig{l}}, want)
	}
}

// refuse wants New to fail with a sentence that contains want.
func refuse(t *testing.T, src *source, cfg embedded.Config, want string) {
	t.Helper()
	store, err := ufs.Open(t.Context(), "http://"+src.addr()+"/", ufs.Options{})
	if err != nil {
		t.Fatal(err)
	}
	c, err := embedded.New(store, cfg)
	if err == nil {
		_ = c.Close()
		t.Fatalf("no error, want %q", want)
	}
	if !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
		t.Errorf("error %q, want one line with %q", err, want)
	}
}

// TestFullTier lets another process fill the file system under the tier.
func TestFullTier(t *testing.T) {
	dir := smallTmpfs(t, "8m")
	src := newSource(t)
	fill(t, src, 6)
	c := src.client(t, embedded.Config{Levels: tier(dir, 7*mib)})
	if err := os.WriteFile(filepath.Join(dir, "other"), random(1, 6*mib), 0o600); err != nil {
		t.Fatal(err)
	}
	checkAll(t, src, c)
	if c.Capacity().Levels[0].Problem == "" {
		t.Error("the full tier is not reported")
	}
}

func checkAll(t *testing.T, src *source, c *embedded.Cache) {
	t.Helper()
	for range 2 {
		for i := range 6 {
			if got := readFile(t, c, numbered(i)); !bytes.Equal(got, random(byte(i), mib-4096)) {
				t.Errorf("file %d reads wrong", i)
			}
		}
	}
	if src.gets.Load() == 0 {
		t.Error("the source was never asked")
	}
}

func TestReadOnlyTier(t *testing.T) {
	dir := smallTmpfs(t, "8m,ro")
	src := newSource(t)
	fill(t, src, 6)
	c := src.client(t, embedded.Config{Levels: tier(dir, 7*mib)})
	checkAll(t, src, c)
	if c.Capacity().Levels[0].Problem == "" {
		t.Error("the read-only tier is not reported")
	}
}

func smallTmpfs(t *testing.T, size string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: mounts a small tmpfs")
	}
	dir := t.TempDir()
	var flags uintptr
	size, ro := strings.CutSuffix(size, ",ro")
	if ro {
		flags = unix.MS_RDONLY
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", flags, "size="+size); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}
