package gateway_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"millrace.io/millrace/cacheclient/gateway"
	"millrace.io/millrace/sanity/pace"
	"millrace.io/millrace/sanity/serve"
)

// makeFiles makes empty files, and directories where a name ends in a slash.
func makeFiles(t *testing.T, dir string, names ...string) {
	t.Helper()
	for _, name := range names {
		full := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(name, "/") {
			if err := os.MkdirAll(full, 0o755); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := os.WriteFile(full, []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// TestListRecursive compares listings in pages of many sizes with a walk of the directory, in the order of keys, in
// which a directory sorts by its slash: "a!" and "a-b" come before "a/", which comes before "a0".
func TestListRecursive(t *testing.T) {
	overSources(t, func(s *subject) {
		t, dir, r := s.T, s.dir, s.r
		makeFiles(t, dir, "a-b", "a!", "a/1", "a/1-2", "a/1.d/x", "a/2/", "a0", "a/1.d/y/z", "b/c/d/e/f/", "ÿ/x", "z")
		want := walkTree(t, dir)
		c := r.client(r.keys)
		for _, most := range []int32{1, 2, 3, 7, 1000} {
			got := list(t, c, "", "", most)
			if !slices.Equal(got.keys, want) || len(got.prefixes) != 0 {
				t.Errorf("in pages of %d: %q, want %q", most, got.keys, want)
			}
			if pages := (len(want) + int(most) - 1) / int(most); got.pages != pages {
				t.Errorf("%d pages of %d for %d keys", got.pages, most, len(want))
			}
		}
		for _, prefix := range []string{
			"a", "a/", "a/1", "a/1.", "a/1.d/", "odd/", "odd/%", "b/c/d", "nothing",
			"a/nothing/", "/", "a.txt/", "odd/größe ☃",
		} {
			var below []string
			for _, key := range want {
				if strings.HasPrefix(key, prefix) {
					below = append(below, key)
				}
			}
			if got := list(t, c, prefix, "", 2); !slices.Equal(got.keys, below) {
				t.Errorf("below %q: %q, want %q", prefix, got.keys, below)
			}
		}
	})
}

// TestListDelimited compares listings of one level, as Alluxio makes them.
func TestListDelimited(t *testing.T) {
	overSources(t, func(s *subject) {
		t, dir, r := s.T, s.dir, s.r
		makeFiles(t, dir, "a-b", "a!", "a/1", "a/1-2", "a/1.d/x", "a/2/", "a0")
		all := walkTree(t, dir)
		c := r.client(r.keys)
		for _, delimiter := range []string{"/", "-", "d/", "☃"} {
			for _, prefix := range []string{"", "a", "a/", "a/1", "odd/", "a/2/", "no", "dir/deep"} {
				var keys, prefixes []string
				for _, key := range all {
					rest, below := strings.CutPrefix(key, prefix)
					if !below {
						continue
					}
					if before, _, found := strings.Cut(rest, delimiter); found {
						prefixes = append(prefixes, prefix+before+delimiter)
					} else {
						keys = append(keys, key)
					}
				}
				prefixes = slices.Compact(prefixes)
				for _, most := range []int32{1, 3, 1000} {
					if got := list(t, c, prefix, delimiter, most); !slices.Equal(got.keys, keys) ||
						!slices.Equal(got.prefixes, prefixes) {
						t.Errorf("%q by %q in pages of %d: %q and %q, want %q and %q", prefix, delimiter, most,
							got.keys, got.prefixes, keys, prefixes)
					}
				}
			}
		}
	})
}

// TestListVersion1 reads the same by the older request, and checks what only one of them has.
func TestListVersion1(t *testing.T) {
	overSources(t, func(s *subject) {
		t, dir, r := s.T, s.dir, s.r
		want := walkTree(t, dir)
		c := r.client(r.keys)
		var keys []string
		in := &s3.ListObjectsInput{Bucket: aws.String("data"), MaxKeys: aws.Int32(4)}
		for {
			page, err := c.ListObjects(t.Context(), in)
			if err != nil {
				t.Fatal(err)
			}
			for _, o := range page.Contents {
				keys = append(keys, *o.Key)
			}
			if !*page.IsTruncated {
				break
			}
			in.Marker = page.NextMarker
		}
		if !slices.Equal(keys, want) {
			t.Errorf("%q, want %q", keys, want)
		}
		after, err := c.ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{
			Bucket:     aws.String("data"),
			StartAfter: aws.String(want[3]),
		})
		if err != nil || *after.Contents[0].Key != want[4] {
			t.Errorf("after %q comes %+v, %v", want[3], after, err)
		}
		if _, err := c.ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{
			Bucket:            aws.String("data"),
			ContinuationToken: aws.String("?"),
		}); !is(err, 400) {
			t.Errorf("a wrong token: %v", err)
		}
		none, err := c.ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{
			Bucket:  aws.String("data"),
			MaxKeys: aws.Int32(0),
		})
		if err != nil || len(none.Contents) != 0 || *none.IsTruncated {
			t.Errorf("no keys at all: %+v, %v", none, err)
		}
	})
}

// TestListMany reads a directory of 10,000 files behind a web server: its index page once, and each file's head once,
// also when the files are read soon after.
func TestListMany(t *testing.T) {
	pace.Long(t)
	const files = 10_000
	dir := t.TempDir()
	names := make([]string, files)
	for i := range names {
		names[i] = fmt.Sprintf("many/file %05d#%%41", i)
	}
	makeFiles(t, dir, names...)
	server, address := httpSource(t, dir, serve.Options{})
	r := start(t, open(t, "http://"+address+"/"), func(c *gateway.Config) { c.Revalidate = time.Minute })
	c := r.client(r.keys)
	before := server.Stats()
	got := list(t, c, "many/", "/", 1000)
	if !slices.Equal(got.keys, append([]string{"many/"}, names...)) || got.pages != 11 {
		t.Errorf("%d keys in %d pages", len(got.keys), got.pages)
	}
	for name, size := range got.objects {
		if name != "many/" && size != int64(len(name)) {
			t.Fatalf("%q is listed with %d bytes", name, size)
		}
	}
	// Until a HEAD has been compared, once, files are described by their first byte; the directory is looked at, too.
	if s := server.Stats().Sub(before); s.Lists != 1 || s.Requests > files+32 || s.BodyBytes > s.Requests-s.Heads {
		t.Errorf("the source saw %+v", s)
	}
	before = server.Stats()
	for _, n := range []int{0, 77, files - 1} {
		if data, err := get(t, c, names[n]); err != nil || string(data) != names[n] {
			t.Errorf("%q: %q, %v", names[n], data, err)
		}
	}
	// What was written a moment ago is confirmed by a HEAD.
	if s := server.Stats().Sub(before); s.Requests-s.Heads != 3 {
		t.Errorf("three files that are known cost the source %+v", s)
	}
}

// TestListWindows reads a directory that no window has room for, in an order that is not that of keys.
func TestListWindows(t *testing.T) {
	pace.Long(t)
	const files = 15_000
	dir := t.TempDir()
	names := make([]string, files)
	for i := range names {
		// The sparse order of a hash, and long enough that 2 MiB hold some 6,000.
		names[i] = fmt.Sprintf("%08x-%0200d", uint32(i)*2654435761, i)
	}
	makeFiles(t, dir, names...)
	slices.Sort(names)
	r := start(t, open(t, dir), nil)
	got := list(t, r.client(r.keys), "", "/", 1000)
	if !slices.Equal(got.keys, names) || got.pages != 15 {
		t.Errorf("%d keys in %d pages", len(got.keys), got.pages)
	}
	// A page costs no listing of the directory, but a window does.
	if n := r.metric(t, `millrace_gateway_source_requests_total{operation="list",result="ok"}`); n < 3 || n > 6 {
		t.Errorf("the directory was read %v times", n)
	}
}

// TestListFresh sees what is new at the source in a listing that begins, and keeps to one view in one that goes on.
func TestListFresh(t *testing.T) {
	overSources(t, func(s *subject) {
		t, dir := s.T, s.dir
		r := start(t, open(t, dir), func(c *gateway.Config) { c.Revalidate = -1 })
		c := r.client(r.keys)
		list(t, c, "", "", 1000)
		makeFiles(t, dir, "dir/new", "other/file")
		if got := list(t, c, "", "", 1000); !slices.Equal(got.keys, walkTree(t, dir)) {
			t.Errorf("%q", got.keys)
		}
	})
}
