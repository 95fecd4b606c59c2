package onemachine_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"millrace.io/millrace/sanity/pace"
)

// TestNames reads files and directories whose names mean something to a shell, a URL or HTML.
func TestNames(t *testing.T) {
	needsMount(t)
	t.Parallel()
	source := t.TempDir()
	names := []string{
		"a b", " leading", "trailing ", "100%", "%41", "%2F", "%zz", "ünïcødé", "日本語.txt", "🦀", "e\u0301 and \u00e9",
		"#hash", "a#b", "q?mark", "?", "-dash", "--", "-rf", "a&b;c", "a&amp;b", "<b>", `quote"'`, "colon:x",
		"plus+plus", "tilde~",
		".hidden", "..data", "...", "index.html", `back\slash`, "[brackets]", "*star*", "$HOME", "`tick`", "a=b",
		"comma,", "@at", "!",
		strings.Repeat("x", 255),
	}
	for i, name := range names {
		write(t, source, "files/"+name, fmt.Appendf(nil, "content %d of %s", i, name))
		if len(name) < 200 {
			write(t, source, "dirs/"+name+"/inside "+name, []byte(name))
		}
		write(t, source, "empty/"+name, nil)
	}
	r := newRig(t, source)
	sameTree(t, source, r.dir)
	// By name and without a listing before, as a new process would.
	r.unmount()
	r.mount()
	for i, name := range names {
		got, err := readFile(t, filepath.Join(r.dir, "files", name))
		if want := fmt.Sprintf("content %d of %s", i, name); err != nil || string(got) != want {
			t.Errorf("%q: %q, %v", name, got, err)
		}
		if got, err := readFile(t, filepath.Join(r.dir, "empty", name)); err != nil || len(got) != 0 {
			t.Errorf("empty %q: %q, %v", name, got, err)
		}
	}
	if _, err := readFile(t, filepath.Join(r.dir, "files", "no such")); !os.IsNotExist(err) {
		t.Errorf("a name that is not there: %v", err)
	}
	r.unmount()
}

// TestManyFiles lists a directory of 100,000 files.
func TestManyFiles(t *testing.T) {
	needsMount(t)
	t.Parallel()
	const count = 30_000
	source := memoryDir(t)
	if err := os.Mkdir(filepath.Join(source, "many"), 0o755); err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-30 * 24 * time.Hour)
	for i := range count {
		name := filepath.Join(source, "many", fmt.Sprintf("file-%06d", i))
		if err := os.WriteFile(name, strconv.AppendInt(nil, int64(i), 10), 0o600); err != nil {
			t.Fatal(err)
		}
		// What changed a moment ago is not believed for long.
		if err := os.Chtimes(name, old, old); err != nil {
			t.Fatal(err)
		}
	}
	// A busy machine takes long to make a listing of that size, and that is not what is tested.
	r := newRig(t, source, "--revalidate", "1h", "--timeout", pace.Limit(30*time.Second).Round(time.Second).String())
	for _, when := range []string{"first", "second"} {
		begin, before := time.Now(), r.server.Stats()
		out, err := r.try(filepath.Join(r.dir, "many"), 5*time.Minute, "find", ".", "-type", "f", "-printf", "%f %s\n")
		if err != nil {
			t.Fatal(err)
		}
		seen := map[string]bool{}
		for line := range strings.Lines(out) {
			name, size, _ := strings.Cut(strings.TrimSpace(line), " ")
			i, err := strconv.Atoi(strings.TrimPrefix(name, "file-"))
			if err != nil || i < 0 || i >= count || size != strconv.Itoa(len(strconv.Itoa(i))) {
				t.Fatalf("find prints %q", line)
			}
			seen[name] = true
		}
		asked := r.server.Stats().Sub(before).Requests
		t.Logf("the %s listing took %v and %d requests", when, time.Since(begin).Round(time.Millisecond), asked)
		if when == "second" && asked > 10 {
			t.Errorf("the second listing made %d requests", asked)
		}
		if len(seen) != count {
			t.Fatalf("%d different files of %d", len(seen), count)
		}
	}
	for _, i := range []int{0, 1, count / 2, count - 1} {
		got, err := readFile(t, filepath.Join(r.dir, "many", fmt.Sprintf("file-%06d", i)))
		if err != nil || string(got) != strconv.Itoa(i) {
			t.Errorf("file %d: %q, %v", i, got, err)
		}
	}
	r.unmount()
}

// memoryDir is a directory in memory where there is some: 100,000 files are made and removed faster.
func memoryDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "millrace-onemachine-") //nolint:usetesting // t.TempDir is on disk
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// TestOverFourGiB reads both ends of a sparse file whose size needs more than 32 bits, without the
// middle being asked for.
func TestOverFourGiB(t *testing.T) {
	needsMount(t)
	t.Parallel()
	const size = 4<<30 + 5<<20 + 7
	source := t.TempDir()
	head, tail := random(1, 1<<20), random(2, 1<<20)
	f, err := os.Create(filepath.Join(source, "sparse.bin"))
	if err != nil {
		t.Fatal(err)
	}
	_, err1 := f.WriteAt(head, 0)
	_, err2 := f.WriteAt(tail, size-int64(len(tail)))
	if err1 != nil || err2 != nil || f.Close() != nil {
		t.Fatal(err1, err2)
	}
	r := newRig(t, source)
	name := filepath.Join(r.dir, "sparse.bin")
	read := func(off int64, want []byte) {
		t.Helper()
		got := make([]byte, len(want))
		err := within(t, commandLimit, func() error {
			f, err := os.Open(name)
			if err != nil {
				return err
			}
			defer func() { _ = f.Close() }()
			_, err = f.ReadAt(got, off)
			return err
		})
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("at %d: equal %v, %v", off, bytes.Equal(got, want), err)
		}
	}
	if st, err := os.Stat(name); err != nil || st.Size() != size {
		t.Errorf("the size is %v (%v), not %d", st, err, int64(size))
	}
	read(size-int64(len(tail)), tail)
	read(0, head)
	read(4<<30-512, make([]byte, 1024))
	if sent := r.server.Stats().BodyBytes; sent > 256<<20 {
		t.Errorf("three short reads took %d bytes from the source", sent)
	}
	r.unmount()
}

// TestDeepTree reads a file below many directories.
func TestDeepTree(t *testing.T) {
	needsMount(t)
	t.Parallel()
	source := t.TempDir()
	deep := strings.Repeat("directory with a name/", 100) + "file"
	write(t, source, deep, []byte("at the bottom"))
	r := newRig(t, source)
	got, err := readFile(t, filepath.Join(r.dir, deep))
	if err != nil || string(got) != "at the bottom" {
		t.Errorf("%q, %v", got, err)
	}
	if lines := strings.Count(r.run(r.dir, "find", "."), "\n"); lines != 102 {
		t.Errorf("find sees %d entries, not 102", lines)
	}
	r.unmount()
}
