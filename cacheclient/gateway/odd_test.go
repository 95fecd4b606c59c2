package gateway_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/gateway"
	"millrace.io/millrace/cacheclient/ufs"
	"millrace.io/millrace/sanity/pace"
)

// odd is a source in memory whose answers a test decides.
type odd struct {
	// files are the contents by path; sizes and times are told in the place of theirs.
	files map[string]string
	sizes map[string]int64
	times map[string]time.Time
	// fails are the paths that the source answers with an error.
	fails map[string]error
	// bare has listings tell names alone.
	bare bool
	// confirm is what bodies are confirmed by, nil for nothing.
	confirm func(context.Context) error

	// lists counts listings by directory.
	// mu guards lists.
	mu    sync.Mutex
	lists map[string]int
}

func (o *odd) String() string   { return "odd" }
func (o *odd) Identity() string { return "odd" }
func (o *odd) Close() error     { return nil }

func (o *odd) info(p string) cacheclient.Info {
	i := cacheclient.Info{Path: p, Size: int64(len(o.files[p])), ModTime: time.Unix(1e9, 0), Version: "v1"}
	if size, ok := o.sizes[p]; ok {
		i.Size = size
	}
	if at, ok := o.times[p]; ok {
		i.ModTime = at
	}
	return i
}

func (o *odd) Stat(_ context.Context, p string) (cacheclient.Info, error) {
	if err := o.fails[p]; err != nil {
		return cacheclient.Info{}, err
	}
	if _, ok := o.files[p]; ok {
		return o.info(p), nil
	}
	for of := range o.files {
		if strings.HasPrefix(of, p+"/") {
			return cacheclient.Info{Path: p, Dir: true}, nil
		}
	}
	return cacheclient.Info{}, fs.ErrNotExist
}

func (o *odd) List(_ context.Context, dir string, fn func(cacheclient.Info) error) error {
	o.count(dir)
	if err := o.fails[dir]; err != nil {
		return err
	}
	below := map[string]bool{}
	for p := range o.files {
		rest, ok := p, true
		if dir != "" {
			rest, ok = strings.CutPrefix(p, dir+"/")
		}
		name, _, isDir := strings.Cut(rest, "/")
		if !ok || below[name] {
			continue
		}
		below[name] = true
		i := cacheclient.Info{Path: path.Join(dir, name), Dir: isDir}
		if !isDir {
			i = o.info(p)
			if o.bare {
				i.Size = cacheclient.UnknownSize
			}
		}
		if err := fn(i); err != nil {
			return err
		}
	}
	return nil
}

func (o *odd) count(dir string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.lists == nil {
		o.lists = map[string]int{}
	}
	o.lists[dir]++
}

func (o *odd) Open(_ context.Context, info cacheclient.Info, off, length int64) (*ufs.Body, error) {
	data := o.files[info.Path][off : off+length]
	return &ufs.Body{
		ReadCloser: io.NopCloser(strings.NewReader(data)), Start: off, End: off + length,
		Confirm: o.confirm,
	}, nil
}

func answers(code int) error { return &ufs.StatusError{Code: code, URL: "odd"} }

// TestDirectoriesThatCannotBeListed leaves one directory out of a listing of all: it shows, what is in it is not
// told, and is counted.
func TestDirectoriesThatCannotBeListed(t *testing.T) {
	pace.Long(t)
	for name, err := range map[string]error{
		"forbidden": answers(403), "failing": answers(500),
		"no index page": cacheclient.ErrNotDir,
	} {
		t.Run(name, func(t *testing.T) {
			o := &odd{
				files: map[string]string{"a/1": "x", "bad/2": "y", "bad/deep/3": "z", "c/4": "w", "c/bad/5": "v"},
				fails: map[string]error{"bad": err, "c/bad": err},
			}
			r := start(t, o, nil)
			got := list(t, r.client(r.keys), "", "", 2)
			if want := []string{"a/", "a/1", "bad/", "c/", "c/4", "c/bad/"}; !slices.Equal(got.keys, want) {
				t.Errorf("%q, want %q", got.keys, want)
			}
			if n := r.metric(t, `millrace_gateway_left_out_total{what="directory"}`); n < 2 {
				t.Errorf("%v directories are counted", n)
			}
			if _, listErr := r.client(r.keys).ListObjectsV2(t.Context(),
				&s3.ListObjectsV2Input{Bucket: aws.String("data"), Prefix: aws.String("bad/")}); listErr == nil &&
				!errors.Is(err, cacheclient.ErrNotDir) {
				t.Error("a directory that cannot be listed is empty to who asks for it")
			}
		})
	}
	for name, err := range map[string]error{
		"busy": answers(503), "asks to wait": answers(429),
		"does not answer": cacheclient.ErrUnavailable,
	} {
		t.Run(name, func(t *testing.T) {
			o := &odd{files: map[string]string{"a/1": "x", "bad/2": "y"}, fails: map[string]error{"bad": err}}
			r := start(t, o, nil)
			if _, err := r.client(r.keys).ListObjectsV2(t.Context(),
				&s3.ListObjectsV2Input{Bucket: aws.String("data")}); !is(err, 503) {
				t.Errorf("a listing while the source answers nobody: %v", err)
			}
			busy := &odd{fails: map[string]error{"": err}}
			want := 503
			if name != "does not answer" {
				want = 200
			}
			if got := start(t, busy, nil).probe(t, "/readyz"); got != want {
				t.Errorf("readyz is %d, want %d", got, want)
			}
		})
	}
}

// TestFilesThatCannotBeDescribed leaves single files out of a listing that the server fails on, or of which it tells
// what cannot be.
func TestFilesThatCannotBeDescribed(t *testing.T) {
	o := &odd{
		files: map[string]string{"a": "x", "bad": "y", "huge": "z", "negative": "w", "z": "v"},
		sizes: map[string]int64{"huge": 1 << 62, "negative": -5}, fails: map[string]error{"bad": answers(500)},
		times: map[string]time.Time{
			"a": time.Date(292277026596, 1, 1, 0, 0, 0, 0, time.UTC),
			"z": time.Date(-5, 1, 1, 0, 0, 0, 0, time.UTC),
		}, bare: true,
	}
	r := start(t, o, func(c *gateway.Config) { c.Revalidate = -1 })
	c := r.client(r.keys)
	got := list(t, c, "", "", 1000)
	if want := []string{"a", "z"}; !slices.Equal(got.keys, want) {
		t.Errorf("%q, want %q", got.keys, want)
	}
	if n := r.metric(t, `millrace_gateway_left_out_total{what="file"}`); n != 3 {
		t.Errorf("%v files are counted", n)
	}
	if _, err := get(t, c, "huge"); !is(err, 400) {
		t.Errorf("a file of 2^62 bytes: %v", err)
	}
	if data, err := get(t, c, "z"); err != nil || string(data) != "v" {
		t.Errorf("a file beside it: %q, %v", data, err)
	}
	o.bare = false
	if got := list(t, c, "", "", 1000); !slices.Equal(got.keys, []string{"a", "bad", "z"}) {
		t.Errorf("with sizes in the listing: %q", got.keys)
	}
}

// TestKeysOfAnyBytes lists names of all kinds: those that are no UTF-8 are no keys, and controls show where the
// client decodes them.
func TestKeysOfAnyBytes(t *testing.T) {
	o := &odd{files: map[string]string{
		"a\x01b": "1", "caf\xe9": "2", "tab\tnew\nline": "3", "d\x02/x": "4",
		"größe ☃ +%41&<>": "5", " ": "6",
	}}
	r := start(t, o, nil)
	c := r.client(r.keys)
	in := &s3.ListObjectsV2Input{Bucket: aws.String("data"), EncodingType: types.EncodingTypeUrl}
	page, err := c.ListObjectsV2(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	var keys []string
	for _, o := range page.Contents {
		keys = append(keys, *o.Key)
	}
	want := []string{
		"%20", "a%01b", "d%02/", "d%02/x", "gr%C3%B6%C3%9Fe%20%E2%98%83%20%2B%2541%26%3C%3E",
		"tab%09new%0Aline",
	}
	if !slices.Equal(keys, want) {
		t.Errorf("%q, want %q", keys, want)
	}
	plain := list(t, c, "", "", 2)
	if want := []string{" ", "größe ☃ +%41&<>", "tab\tnew\nline"}; !slices.Equal(plain.keys, want) {
		t.Errorf("as they are: %q, want %q", plain.keys, want)
	}
	for key, data := range o.files {
		if got, err := get(t, c, key); key != "caf\xe9" && (err != nil || string(got) != data) {
			t.Errorf("%q: %q, %v", key, got, err)
		}
	}
	if n := r.metric(t, `millrace_gateway_left_out_total{what="name"}`); n < 2 {
		t.Errorf("%v names are counted", n)
	}
}

// TestKeysThatAreNone asks for what a source would read as another path.
func TestKeysThatAreNone(t *testing.T) {
	overSources(t, func(s *subject) {
		t, dir, r := s.T, s.dir, s.r
		makeFiles(t, dir, "a/b")
		c := r.client(r.keys)
		for _, key := range []string{"a//b", "a/./b", "a/../a/b", "../a/b", "./a/b", "a/b//", "a/b/."} {
			if data, err := get(t, c, key); !is(err, 404) {
				t.Errorf("%q is %q, %v", key, data, err)
			}
		}
		for _, prefix := range []string{"a//", "./", "../", "a/./"} {
			if got := list(t, c, prefix, "", 10); len(got.keys) > 0 {
				t.Errorf("below %q are %q", prefix, got.keys)
			}
		}
	})
}

// TestABodyIsConfirmed has a source say after a body that it may have been another version's: the client does not get
// the last bytes.
func TestABodyIsConfirmed(t *testing.T) {
	var asked atomic.Int64
	var stale atomic.Bool
	o := &odd{files: map[string]string{"f": string(bytes.Repeat([]byte("x"), 1<<20))}}
	o.confirm = func(context.Context) error {
		asked.Add(1)
		if stale.Load() {
			return cacheclient.ErrStale
		}
		return nil
	}
	r := start(t, o, nil)
	c := r.client(r.keys)
	if data, err := get(t, c, "f"); err != nil || len(data) != 1<<20 || asked.Load() != 1 {
		t.Errorf("%d bytes, confirmed %d times, %v", len(data), asked.Load(), err)
	}
	stale.Store(true)
	if data, err := get(t, c, "f"); err == nil || len(data) >= 1<<20 {
		t.Errorf("%d bytes of a version that is none, %v", len(data), err)
	}
}
