package main

import (
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"millrace.io/millrace/cacheclient/cachetest"
)

// TestReplacedByOneOfTheSameTime shows what a directory has now, whatever tells that it is another: the file's inode
// alone, or where a link to the source leads, in this mount and in the next one.
func TestReplacedByOneOfTheSameTime(t *testing.T) {
	r := newRig(t)
	put := func(dir, text string) {
		name := filepath.Join(dir, "f")
		if err := os.WriteFile(name+".new", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(name+".new", time.Unix(1, 0), time.Unix(1, 0)); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(name+".new", name); err != nil {
			t.Fatal(err)
		}
	}
	other, link := filepath.Join(r.base, "other"), filepath.Join(r.base, "current")
	if err := os.Mkdir(other, 0o755); err != nil {
		t.Fatal(err)
	}
	put(r.source, "one")
	put(other, "two")
	lead := func(to string) {
		if err := os.Symlink(to, link+".new"); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(link+".new", link); err != nil {
			t.Fatal(err)
		}
	}
	lead(r.source)
	r.mountBackground(link, "--revalidate", "0")
	r.same("f", []byte("one"))
	put(r.source, "six")
	r.same("f", []byte("six"))
	lead(other)
	r.same("f", []byte("two"))
	r.ok("unmount", r.dir)
	lead(r.source)
	r.mountBackground(link, "--revalidate", "0")
	r.same("f", []byte("six"))
	r.ok("unmount", r.dir)
}

// mountBucket mounts a bucket of a server, whose keys come from the environment.
func (r *rig) mountBucket(b *cachetest.Bucket, more ...string) {
	r.t.Helper()
	server := httptest.NewServer(b)
	r.t.Cleanup(server.Close)
	r.env = append(r.env, "BUCKET_KEY=key", "BUCKET_SECRET=secret")
	args := []string{
		"--background", "--revalidate", "0", "--log-file", filepath.Join(r.base, "log"), "--option",
		"endpoint=" + server.URL,
		"--option", "access_key_id=env:BUCKET_KEY", "--option", "secret_access_key=env:BUCKET_SECRET",
	}
	r.ok(r.mountArgs("s3://b", append(args, more...)...)...)
}

// logged is the log of mountBucket.
func (r *rig) logged() string {
	text, _ := os.ReadFile(filepath.Join(r.base, "log"))
	return string(text)
}

// TestTwoServersOfOneBucket keeps the caches of two servers apart that have a bucket of one name.
func TestTwoServersOfOneBucket(t *testing.T) {
	r := newRig(t)
	for range 2 {
		for _, text := range []string{"of the first", "of another"} {
			r.mountBucket(&cachetest.Bucket{Objects: map[string]string{"f": text}})
			r.same("f", []byte(text))
			r.ok("unmount", r.dir)
		}
	}
}

// TestObjectAndPrefixOfOneName mounts a bucket where a key is also what others begin with, and copies it.
func TestObjectAndPrefixOfOneName(t *testing.T) {
	r := newRig(t)
	r.mountBucket(&cachetest.Bucket{Objects: map[string]string{
		"out": "an object", "out-x": "x", "out/shadow": "below",
		"a//b": "nowhere",
	}})
	r.same("out/shadow", []byte("below"))
	copied := filepath.Join(r.base, "copied")
	if out, err := exec.Command("cp", "-r", r.dir, copied).CombinedOutput(); err != nil {
		t.Errorf("cp: %v: %s", err, out)
	}
	for name, want := range map[string]string{"out/shadow": "below", "out-x": "x"} {
		if got, err := os.ReadFile(filepath.Join(copied, name)); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	for _, want := range []string{"an object is not shown", "a key is not shown"} {
		if n := strings.Count(r.logged(), want); n != 1 {
			t.Errorf("%q is in the log %d times: %s", want, n, r.logged())
		}
	}
	r.ok("unmount", r.dir)
}

// TestArchivedObject shows an archived object with its size, and logs why it cannot be read.
func TestArchivedObject(t *testing.T) {
	r := newRig(t)
	b := &cachetest.Bucket{Objects: map[string]string{"cold": "12345", "warm": "w"}}
	b.Refuse = func(req *http.Request, key string) (int, string) {
		if key == "cold" && req.Method == http.MethodGet {
			return http.StatusForbidden, "InvalidObjectState"
		}
		return 0, ""
	}
	r.mountBucket(b)
	if st, err := os.Stat(filepath.Join(r.dir, "cold")); err != nil || st.Size() != 5 {
		t.Errorf("%v, %v", st, err)
	}
	if _, err := os.ReadFile(filepath.Join(r.dir, "cold")); err == nil {
		t.Error("it is read")
	}
	r.same("warm", []byte("w"))
	waitFor(t, "the reason in the log", func() bool { return strings.Contains(r.logged(), "InvalidObjectState") })
	r.ok("unmount", r.dir)
}

// TestMountsInsideSources leaves out what two mounts show of each other's mount point, and says so: a walk of one of
// them would go round for ever.
func TestMountsInsideSources(t *testing.T) {
	r := newRig(t)
	data := r.write("f", 100_000)
	other := filepath.Join(r.base, "other")
	first, second := filepath.Join(other, "m"), filepath.Join(r.source, "m")
	for _, dir := range []string{other, first, second} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(other, "g"), []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(r.base, "log")
	r.dir = first
	r.mountBackground(r.source, "--revalidate", "0", "--log-file", log)
	r.dir = second
	r.mountBackground(other, "--revalidate", "0", "--log-file", log)
	r.same("g", []byte("text"))
	r.dir = first
	r.same("f", data)
	for dir, want := range map[string]string{first: "f", second: "g"} {
		names, err := os.ReadDir(dir)
		if err != nil || len(names) != 1 || names[0].Name() != want {
			t.Errorf("%s: %v, %v", dir, names, err)
		}
		if _, err := os.Stat(filepath.Join(dir, "m")); !os.IsNotExist(err) {
			t.Errorf("%s shows the other mount: %v", dir, err)
		}
	}
	if text, _ := os.ReadFile(log); strings.Count(string(text), "inside the source is not shown") != 2 {
		t.Errorf("it is not told once by each: %s", text)
	}
	r.ok("unmount", first)
	r.ok("unmount", second)
}

// TestMountedTwice mounts a source a second time with another quota, while the first mount keeps what it has cached.
func TestMountedTwice(t *testing.T) {
	r := newRig(t)
	data := r.write("f", 300_000)
	url := r.fileServer()
	r.mountBackground(url)
	r.same("f", data)
	first := r.dir
	r.dir = filepath.Join(r.base, "second")
	if err := os.Mkdir(r.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	r.ok("mount", "--background", "--tier-dir", r.tier, "--quota", "32Mi", url, r.dir)
	r.same("f", data)
	if q := r.status(r.dir).Capacity.Quota; q != 32<<20 {
		t.Errorf("the second mount's quota is %d", q)
	}
	second := r.dir
	r.dir = first
	r.same("f", data)
	r.ok("unmount", first)
	r.mountBackground(url)
	r.same("f", data)
	if got := r.status(r.dir).Counters.BytesSource; got != 0 {
		t.Errorf("%d bytes of what was cached came anew", got)
	}
	r.ok("unmount", r.dir)
	r.ok("unmount", second)
}

// TestFarTimesThroughAMount shows times that nanoseconds of an int64 do not hold.
func TestFarTimesThroughAMount(t *testing.T) {
	r := newRig(t)
	want := map[string]int64{}
	for name, sec := range map[string]int64{
		"y1600": -11676096000, "y1969": -86400, "y2300": 10413792000,
		"y9999": 253402214400,
	} {
		r.write(name, 10)
		path := filepath.Join(r.source, name)
		if err := unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{{Sec: sec}, {Sec: sec}}, 0); err != nil {
			t.Fatal(err)
		}
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil {
			t.Fatal(err)
		}
		// Not every file system holds them all.
		want[name] = st.Mtim.Sec
	}
	r.mountBackground(r.source)
	if _, err := os.ReadDir(r.dir); err != nil {
		t.Fatal(err)
	}
	for name, sec := range want {
		var st unix.Stat_t
		if err := unix.Stat(filepath.Join(r.dir, name), &st); err != nil || st.Mtim.Sec != sec {
			t.Errorf("%s: %d, not %d, %v", name, st.Mtim.Sec, sec, err)
		}
		if _, err := os.ReadFile(filepath.Join(r.dir, name)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	r.ok("unmount", r.dir)
}
