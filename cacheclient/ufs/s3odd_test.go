package ufs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/cachetest"
	"millrace.io/millrace/sanity/pace"
)

// openBucket serves the bucket and opens it as a source with more options.
func openBucket(t *testing.T, b *cachetest.Bucket, more map[string]string) (Store, *testLog) {
	t.Helper()
	server := httptest.NewServer(b)
	t.Cleanup(server.Close)
	opts := s3Options(t, server.URL)
	opts.Values["provider"] = providerOther
	opts.ResponseTimeout = pace.Limit(time.Second)
	for name, value := range more {
		opts.Values[name] = value
	}
	log := newLog()
	opts.Log = log.logger
	return mustOpen(t, "s3://b", opts), log
}

// testLog keeps what is logged.
type testLog struct {
	mu     sync.Mutex
	buf    bytes.Buffer
	logger *slog.Logger
}

func newLog() *testLog {
	l := &testLog{}
	l.logger = slog.New(slog.NewTextHandler(l, nil))
	return l
}

func (l *testLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *testLog) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// content reads the whole of a file.
func content(t *testing.T, store Store, path string) (string, error) {
	t.Helper()
	info, err := store.Stat(testContext(t), path)
	if err != nil {
		return "", err
	}
	got, err := readAll(testContext(t), store, info, 0, info.Size)
	return string(got), err
}

// TestS3OneKeyTwice shows the directory where a key is also what others begin with, however the pages are cut, by each
// question.
func TestS3OneKeyTwice(t *testing.T) {
	objects := map[string]string{
		"out": "object", "out-1": "1", "out.d/x": "x", "out/shadow": "below", "out!": "!", "plain": "p",
		"deep/a": "object", "deep/a/b/c": "c",
	}
	for pageSize := range 5 {
		b := &cachetest.Bucket{Objects: objects, PageSize: pageSize}
		store, log := openBucket(t, b, nil)
		for range 2 {
			info, err := store.Stat(testContext(t), "out")
			if err != nil || !info.Dir {
				t.Fatalf("%d a page: %+v, %v", pageSize, info, err)
			}
			if names, _ := listNames(t, store, ""); !slices.Equal(names,
				[]string{"deep/", "out!", "out-1", "out.d/", "out/", "plain"}) {
				t.Errorf("%d a page: %q", pageSize, names)
			}
			if names, _ := listNames(t, store, "deep"); !slices.Equal(names, []string{"a/"}) {
				t.Errorf("%d a page: deep has %q", pageSize, names)
			}
			if got, err := content(t, store, "out/shadow"); err != nil || got != "below" {
				t.Errorf("%d a page: %q, %v", pageSize, got, err)
			}
		}
		if n := strings.Count(log.text(), "not shown"); n != 1 {
			t.Errorf("told %d times: %s", n, log.text())
		}
	}
}

// TestS3Lookups counts what a lookup costs: two requests side by side for an object of which nothing is known, one for
// one that was listed or looked up.
func TestS3Lookups(t *testing.T) {
	b := &cachetest.Bucket{Objects: map[string]string{"a": "a", "b": "b", "c": "c"}}
	store, _ := openBucket(t, b, nil)
	cost := func(path string) int64 {
		before := b.Requests.Load()
		if _, err := store.Stat(testContext(t), path); err != nil {
			t.Fatal(err)
		}
		return b.Requests.Load() - before
	}
	if first, again := cost("c"), cost("c"); first != 2 || again != 1 {
		t.Errorf("looked up: %d and %d requests", first, again)
	}
	listNames(t, store, "")
	if n := cost("b"); n != 1 {
		t.Errorf("listed: %d requests", n)
	}
	// What becomes a directory is one as soon as the object has gone.
	delete(b.Objects, "b")
	b.Objects["b/c"] = "c"
	if info, err := store.Stat(testContext(t), "b"); err != nil || !info.Dir {
		t.Errorf("%+v, %v", info, err)
	}
}

// TestS3Archived shows an archived object with its size, and says why it cannot be read.
func TestS3Archived(t *testing.T) {
	b := &cachetest.Bucket{Objects: map[string]string{"cold": strings.Repeat("c", 1000), "warm": "w"}}
	b.Refuse = func(r *http.Request, key string) (int, string) {
		if key == "cold" && r.Method == http.MethodGet {
			return http.StatusForbidden, archived
		}
		return 0, ""
	}
	store, _ := openBucket(t, b, nil)
	info, err := store.Stat(testContext(t), "cold")
	if err != nil || info.Size != 1000 {
		t.Fatalf("%+v, %v", info, err)
	}
	if _, infos := listNames(t, store, ""); infos[0].Mark() != info.Mark() {
		t.Errorf("listed as %q, looked up as %q", infos[0].Mark(), info.Mark())
	}
	_, err = readAll(testContext(t), store, info, 0, 10)
	if err == nil || !strings.Contains(err.Error(), "restored") || !strings.Contains(err.Error(), archived) ||
		errors.Is(err, fs.ErrPermission) {
		t.Errorf("reading: %v", err)
	}
	if retry, _ := Retryable(err); retry {
		t.Error("it is asked for again")
	}
}

// TestS3Refused tells what is missing from what is refused, by the listing where the server does not tell.
func TestS3Refused(t *testing.T) {
	objects := map[string]string{"plain": "p", "dir/x": "x", "secret": "s", "marker/": ""}
	missing := func(_ *http.Request, key string) (int, string) {
		if _, there := objects[key]; !there && key != "" || key == "secret" {
			return http.StatusForbidden, "AccessDenied"
		}
		return 0, ""
	}
	store, _ := openBucket(t, &cachetest.Bucket{Objects: objects, Refuse: missing}, nil)
	for path, want := range map[string]error{
		"none": fs.ErrNotExist, "dir/none": fs.ErrNotExist,
		"plain/none": fs.ErrNotExist, "dir": nil, "dir/x": nil, "plain": nil, "marker": nil,
	} {
		if info, err := store.Stat(testContext(t), path); !errors.Is(err, want) {
			t.Errorf("%s: %+v, %v", path, info, err)
		}
	}
	// What is refused is there, and says so when it is read.
	info, err := store.Stat(testContext(t), "secret")
	if err != nil || info.Size != 1 {
		t.Fatalf("%+v, %v", info, err)
	}
	if _, err := readAll(testContext(t), store, info, 0, 1); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("reading what is refused: %v", err)
	}
	if err := store.List(testContext(t), "none", nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("listing what is not there: %v", err)
	}
	if err := store.List(testContext(t), "plain", nil); !errors.Is(err, cacheclient.ErrNotDir) {
		t.Errorf("listing a file: %v", err)
	}
}

// TestS3HeadRefused shows what is listed where each HEAD is refused by a status that says nothing of rights, as for
// objects that are encrypted by a key of the caller's, and says why it cannot be read.
func TestS3HeadRefused(t *testing.T) {
	for _, code := range []int{
		http.StatusBadRequest, http.StatusConflict, http.StatusPreconditionFailed,
		http.StatusTeapot,
	} {
		b := &cachetest.Bucket{Objects: map[string]string{"locked": "secret", "plain": "p", "dir/x": "x"}}
		b.Refuse = func(r *http.Request, key string) (int, string) {
			if _, there := b.Objects[key]; key == "locked" || key != "" && !there && r.Method == http.MethodHead {
				return code, "InvalidRequest"
			}
			return 0, ""
		}
		store, _ := openBucket(t, b, nil)
		info, err := store.Stat(testContext(t), "locked")
		if err != nil || info.Size != int64(len("secret")) {
			t.Errorf("%d: %+v, %v", code, info, err)
		}
		if _, infos := listNames(t, store, ""); len(infos) != 3 || infos[1].Mark() != info.Mark() {
			t.Errorf("%d: listed as %+v, looked up as %q", code, infos, info.Mark())
		}
		if _, err := readAll(testContext(t), store, info, 0, 1); err == nil ||
			!strings.Contains(err.Error(), strconv.Itoa(code)) {
			t.Errorf("%d: reading: %v", code, err)
		}
		for _, path := range []string{"none", "dir/none", "plain/none"} {
			if info, err := store.Stat(testContext(t), path); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%d: %s: %+v, %v", code, path, info, err)
			}
		}
		if err := store.List(testContext(t), "none", nil); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%d: listing what is not there: %v", code, err)
		}
		if info, err := store.Stat(testContext(t), "dir"); err != nil || !info.Dir {
			t.Errorf("%d: %+v, %v", code, info, err)
		}
	}
}

// TestS3NoRightToList reads what is named exactly, says at the mount which right is missing, and calls nothing missing
// that it cannot know.
func TestS3NoRightToList(t *testing.T) {
	b := &cachetest.Bucket{Objects: map[string]string{"plain": "p", "dir/x": "x"}}
	b.Refuse = func(_ *http.Request, key string) (int, string) {
		if _, there := b.Objects[key]; !there {
			return http.StatusForbidden, "AccessDenied"
		}
		return 0, ""
	}
	server := httptest.NewServer(b)
	t.Cleanup(server.Close)
	opts := s3Options(t, server.URL)
	if _, err := Open(testContext(t), "s3://b", opts); err == nil || !strings.Contains(err.Error(), "s3:ListBucket") {
		t.Errorf("the mount: %v", err)
	}
	opts.Deferred = true
	store := mustOpen(t, "s3://b", opts)
	for _, path := range []string{"plain", "dir/x"} {
		if got, err := content(t, store, path); err != nil || got != b.Objects[path] {
			t.Errorf("%s: %q, %v", path, got, err)
		}
	}
	if _, err := store.Stat(testContext(t), "none"); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("what may be there or not: %v", err)
	}
	if err := store.List(testContext(t), "", nil); !errors.Is(err, fs.ErrPermission) ||
		!strings.Contains(err.Error(), "AccessDenied") {
		t.Errorf("listing: %v", err)
	}
}

// TestS3RequesterPays sends with each request that the requester pays, and signs it.
func TestS3RequesterPays(t *testing.T) {
	b := &cachetest.Bucket{Objects: map[string]string{"plain": "p", "dir/x": "x"}}
	b.Refuse = func(r *http.Request, _ string) (int, string) {
		header, query := r.Header.Get("X-Amz-Request-Payer"), r.URL.Query().Get("x-amz-request-payer")
		signed := strings.Contains(r.Header.Get("Authorization"), "x-amz-request-payer") ||
			query != "" && r.URL.Query().Get("X-Amz-Signature") != ""
		if header != "requester" && query != "requester" || !signed {
			return http.StatusForbidden, "AccessDenied"
		}
		return 0, ""
	}
	store, _ := openBucket(t, b, map[string]string{"requester_pays": "true"})
	for path, want := range b.Objects {
		if got, err := content(t, store, path); err != nil || got != want {
			t.Errorf("%s: %q, %v", path, got, err)
		}
	}
}

// TestS3Anonymous reads a public bucket without keys, and signs nothing.
func TestS3Anonymous(t *testing.T) {
	b := &cachetest.Bucket{Objects: map[string]string{"plain": "p", "dir/with space": "x"}}
	b.Refuse = func(r *http.Request, _ string) (int, string) {
		if r.Header.Get("Authorization") != "" || strings.Contains(r.URL.RawQuery, "X-Amz-Signature") {
			return http.StatusForbidden, "InvalidAccessKeyId"
		}
		return 0, ""
	}
	server := httptest.NewServer(b)
	t.Cleanup(server.Close)
	store := mustOpen(t, "s3://b", Options{Values: map[string]string{"endpoint": server.URL}})
	for path, want := range b.Objects {
		if got, err := content(t, store, path); err != nil || got != want {
			t.Errorf("%s: %q, %v", path, got, err)
		}
	}
	if names, _ := listNames(t, store, "dir"); len(names) != 1 {
		t.Errorf("%q", names)
	}
}

// TestS3Keys shows each key that a file system can name, by its bytes, and tells once of those that it cannot.
func TestS3Keys(t *testing.T) {
	objects := map[string]string{
		"plain": "1", "with space+plus%25": "2", "caf\xe9.bin": "3", "new\nline": "4", "\x01control": "5",
		"\u00fc": "6", "a&b<c>\"": "7",
		"dir/trailing/": "", "tab\there/x": "8", "latin\xff/y": "9", "\uFFFD": "10", "carriage\r": "11", "../up": "12",
		"dir//double": "x", "dir/content/": "an object", "dir/content/f": "13", "/leading": "x", "dir/./dot": "x",
		"dir/../dots":            "x",
		strings.Repeat("n", 255): "14",
	}
	hidden := []string{"dir//double", "dir/content/", "/leading", "dir/./dot", "dir/../dots", "../up", "dir/trailing/"}
	for _, provider := range []string{providerOther, "Minio"} {
		for _, plain := range []bool{false, true} {
			if plain && provider != providerOther {
				continue
			}
			b := &cachetest.Bucket{Objects: objects, PageSize: 3}
			store, log := openBucket(t, b, map[string]string{"provider": provider})
			seen := map[string]bool{}
			var walk func(dir string)
			walk = func(dir string) {
				_, infos := listNames(t, store, dir)
				for _, i := range infos {
					if i.Dir {
						walk(i.Path)
						continue
					}
					seen[i.Path] = true
					got, err := readAll(testContext(t), store, i, 0, i.Size)
					if again, statErr := store.Stat(testContext(t), i.Path); statErr != nil ||
						again.Mark() != i.Mark() {
						t.Errorf("%q: %+v, %v", i.Path, again, statErr)
					}
					if err != nil || string(got) != objects[i.Path] {
						t.Errorf("%q: %q, %v", i.Path, got, err)
					}
				}
			}
			walk("")
			for key := range objects {
				if seen[key] == slices.Contains(hidden, key) {
					t.Errorf("%s: %q is shown: %v", provider, key, seen[key])
				}
			}
			if info, err := store.Stat(testContext(t), "dir/trailing"); err != nil || !info.Dir {
				t.Errorf("%+v, %v", info, err)
			}
			if n := strings.Count(log.text(), "cannot name it"); n != 1 {
				t.Errorf("told %d times: %s", n, log.text())
			}
		}
	}
}

// TestS3Versions keeps the ETag of any object as its version, the same from a listing as from a response.
func TestS3Versions(t *testing.T) {
	b := &cachetest.Bucket{
		Objects: map[string]string{"parts": "parts", "upper": "upper", "none": "none", "bare": "bare", "weak": "weak"},
		ETags: map[string]string{
			"parts": `"0123456789abcdef0123456789abcdef-3"`, "upper": `"0123456789ABCDEF0123456789ABCDEF"`, "none": "",
			"weak": `W/"1"`,
		},
		ListedETags: map[string]string{"bare": strings.Trim((&cachetest.Bucket{Objects: map[string]string{"bare": "bare"}}).ETag("bare"), `"`)},
	}
	store, _ := openBucket(t, b, nil)
	_, infos := listNames(t, store, "")
	for _, listed := range infos {
		asked, err := store.Stat(testContext(t), listed.Path)
		if err != nil || asked.Mark() != listed.Mark() {
			t.Errorf("%s: listed as %q, looked up as %q, %v", listed.Path, listed.Mark(), asked.Mark(), err)
		}
		if named := listed.Version != ""; named != (listed.Path != "none" && listed.Path != "weak") {
			t.Errorf("%s: version %q", listed.Path, listed.Version)
		}
		if _, err := readAll(testContext(t), store, listed, 0, listed.Size); err != nil {
			t.Errorf("%s: %v", listed.Path, err)
		}
	}
	// Two uploads in parts within a second, of one size.
	before, _ := store.Stat(testContext(t), "parts")
	b.Objects["parts"], b.ETags["parts"] = "other", `"fedcba9876543210fedcba9876543210-3"`
	if _, err := readAll(testContext(t), store, before, 0, before.Size); !errors.Is(err, cacheclient.ErrStale) {
		t.Errorf("another upload: %v", err)
	}
}

// TestS3ListedETagsDiffer falls back to size and time, and says so once, where listings tell other ETags than responses
// do.
func TestS3ListedETagsDiffer(t *testing.T) {
	b := &cachetest.Bucket{
		Objects:     map[string]string{"a": "a", "b": "b"},
		ListedETags: map[string]string{"a": `"x-1"`, "b": `"y-1"`},
	}
	store, log := openBucket(t, b, nil)
	_, infos := listNames(t, store, "")
	for _, i := range infos {
		if got, err := readConfirmed(t, store, i); err != nil || got != b.Objects[i.Path] {
			t.Errorf("%s the first time: %q, %v", i.Path, got, err)
		}
	}
	_, infos = listNames(t, store, "")
	for _, i := range infos {
		if asked, err := store.Stat(testContext(t), i.Path); err != nil || asked.Mark() != i.Mark() {
			t.Errorf("%s: listed as %q, looked up as %q, %v", i.Path, i.Mark(), asked.Mark(), err)
		}
		if got, err := readAll(testContext(t), store, i, 0, 1); err != nil || string(got) != b.Objects[i.Path] {
			t.Errorf("%s: %q, %v", i.Path, got, err)
		}
	}
	if n := strings.Count(log.text(), "different ETags"); n != 1 {
		t.Errorf("told %d times: %s", n, log.text())
	}
}

// TestS3ListingVersions lists by either version, whatever of them the server knows.
func TestS3ListingVersions(t *testing.T) {
	objects := map[string]string{}
	var want []string
	for i := range 25 {
		name := fmt.Sprintf("f%02d", i)
		objects[name], want = "x", append(want, name)
	}
	for what, c := range map[string]struct {
		b    *cachetest.Bucket
		more map[string]string
	}{
		"version 1":            {&cachetest.Bucket{}, map[string]string{"list_version": "1"}},
		"version 2":            {&cachetest.Bucket{}, map[string]string{"list_version": "2"}},
		"version 2 is ignored": {&cachetest.Bucket{OnlyV1: true}, map[string]string{"provider": "Minio"}},
		"version 2 is refused": {&cachetest.Bucket{Refuse: func(r *http.Request, _ string) (int,
			string,
		) {
			return refusedV2(r)
		}}, map[string]string{"provider": "Minio"}},
		"encoding-type is ignored": {&cachetest.Bucket{Plain: true}, map[string]string{"provider": "Minio"}},
	} {
		c.b.Objects, c.b.PageSize = objects, 4
		store, _ := openBucket(t, c.b, c.more)
		for range 2 {
			if names, _ := listNames(t, store, ""); !slices.Equal(names, want) {
				t.Errorf("%s: %q", what, names)
			}
		}
	}
}

func refusedV2(r *http.Request) (int, string) {
	if r.URL.Query().Get("list-type") == "2" {
		return http.StatusNotImplemented, "NotImplemented"
	}
	return 0, ""
}

// TestS3SlowListing takes a listing to its end however long it takes, as long as it goes on, and gives up where it does
// not.
func TestS3SlowListing(t *testing.T) {
	pace.Long(t)
	objects := map[string]string{}
	for i := range 40 {
		objects[fmt.Sprintf("f%02d", i)] = "x"
	}
	var pause atomic.Int64
	b := &cachetest.Bucket{Objects: objects, PageSize: 2}
	b.Before = func(r *http.Request) {
		select {
		case <-time.After(time.Duration(pause.Load())):
		case <-r.Context().Done():
		}
	}
	server := httptest.NewServer(b)
	t.Cleanup(server.Close)
	opts := s3Options(t, server.URL)
	opts.ResponseTimeout = pace.Limit(400 * time.Millisecond)
	store := mustOpen(t, "s3://b", opts)
	pause.Store(int64(opts.ResponseTimeout / 8))
	started := time.Now()
	if names, _ := listNames(t, store, ""); len(names) != len(objects) {
		t.Errorf("%d names", len(names))
	}
	if took := time.Since(started); took < 2*opts.ResponseTimeout {
		t.Errorf("it took %v, so that nothing was tried", took)
	}
	pause.Store(int64(time.Hour))
	err := store.List(testContext(t), "", func(cacheclient.Info) error { return nil })
	if retry, _ := Retryable(err); !retry || !errors.Is(err, cacheclient.ErrUnavailable) {
		t.Errorf("a silent server: %v", err)
	}
}

// TestS3ListingLies ends where a server's pages do not go on, or are no pages.
func TestS3ListingLies(t *testing.T) {
	var answer atomic.Pointer[string]
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/xml")
		_, _ = io.WriteString(w, *answer.Load())
	}))
	t.Cleanup(server.Close)
	opts := s3Options(t, server.URL)
	opts.Deferred = true
	store := mustOpen(t, "s3://b", opts)
	for what, text := range map[string]string{
		"again and again": "<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>" +
			"<NextMarker>t</NextMarker><Contents><Key>f</Key><Size>1</Size></Contents></ListBucketResult>",
		"cut":                "<ListBucketResult><Contents><Key>f</Key>",
		"no XML":             "what?",
		"no key":             "<ListBucketResult><Contents><Size>1</Size></Contents></ListBucketResult>",
		"no answer":          "<ListBucketResult><IsTruncated>perhaps</IsTruncated></ListBucketResult>",
		"two documents":      "<ListBucketResult></ListBucketResult><ListBucketResult></ListBucketResult>",
		"crossed":            "<ListBucketResult><Contents><Key>f</Contents></Key></ListBucketResult>",
		"a web page":         "<html><body>Welcome</body></html>",
		"goes on to nowhere": "<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>",
	} {
		answer.Store(&text)
		ctx, cancel := context.WithTimeout(testContext(t), pace.Limit(10*time.Second))
		n := 0
		err := store.List(ctx, "", func(cacheclient.Info) error { n++; return nil })
		if err == nil || ctx.Err() != nil || n > 4 {
			t.Errorf("%s: %d entries, %v", what, n, err)
		}
		cancel()
	}
}

// TestS3EndlessAnswers ends where a listing, or the reason of a refusal, has no end: it is read to a bound.
func TestS3EndlessAnswers(t *testing.T) {
	pace.Long(t)
	for status, most := range map[int]int64{
		http.StatusOK: mostListing, http.StatusForbidden: mostExplanation,
		http.StatusInternalServerError: mostExplanation,
	} {
		var sent atomic.Int64
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/xml")
			w.WriteHeader(status)
			_, err := io.WriteString(w, "<ListBucketResult><Contents><Key>")
			for chunk := bytes.Repeat([]byte("k"), 64<<10); err == nil && sent.Load() < 2*mostListing; {
				var n int
				n, err = w.Write(chunk)
				sent.Add(int64(n))
			}
		}))
		opts := s3Options(t, server.URL)
		opts.Deferred = true
		store := mustOpen(t, "s3://b", opts)
		err := store.List(testContext(t), "", func(cacheclient.Info) error { return nil })
		code, refused := statusOf(err)
		if ok := status == http.StatusOK; ok && !errors.Is(err, cacheclient.ErrTooLarge) ||
			!ok && (!refused || code != status) {
			t.Errorf("%d: %v", status, err)
		}
		server.Close()
		// Sockets hold some megabytes.
		if n := sent.Load(); n > most+16<<20 {
			t.Errorf("%d: %d bytes were read", status, n)
		}
	}
}

// TestS3RetryAfter keeps what a server that refuses a listing asks to wait.
func TestS3RetryAfter(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "7")
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	t.Cleanup(server.Close)
	opts := s3Options(t, server.URL)
	opts.Deferred = true
	err := mustOpen(t, "s3://b", opts).List(testContext(t), "", func(cacheclient.Info) error { return nil })
	if again, after := Retryable(err); !again || after != 7*time.Second {
		t.Errorf("retry %v after %v for %v", again, after, err)
	}
}

// TestS3Decompressed refuses an object that is decompressed on the way, whose listed size is that of other bytes.
func TestS3Decompressed(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Goog-Stored-Content-Encoding", "gzip")
		w.Header().Set("Etag", `"v1"`)
		if r.Method == http.MethodGet {
			_ = http.NewResponseController(w).Flush()
			_, _ = io.WriteString(w, "what is longer than it is stored")
		}
	}))
	t.Cleanup(server.Close)
	opts := s3Options(t, server.URL)
	opts.Deferred = true
	store := mustOpen(t, "s3://b", opts)
	_, err := readConfirmed(t, store, cacheclient.Info{Path: "f", Size: 7, Version: `"v1"`})
	if err == nil || errors.Is(err, cacheclient.ErrStale) || !strings.Contains(err.Error(), "decompressed") {
		t.Errorf("%v", err)
	}
}

// TestS3Confirmation overwrites an object that has no ETag while its body comes: what came is confirmed by another
// question, which an ETag spares.
func TestS3Confirmation(t *testing.T) {
	for etag, confirm := range map[string]bool{`"v1"`: false, "": true, `W/"v1"`: true} {
		at := long
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if etag != "" {
				w.Header().Set("Etag", etag)
			}
			http.ServeContent(w, r, "", at, strings.NewReader("content"))
		}))
		t.Cleanup(server.Close)
		opts := s3Options(t, server.URL)
		opts.Deferred = true
		store := mustOpen(t, "s3://b", opts)
		info := cacheclient.Info{Path: "f", Size: 7, ModTime: at}
		if !confirm {
			info.Version = etag
		}
		if _, err := readConfirmed(t, store, info); err != nil {
			t.Errorf("%q: %v", etag, err)
		}
		body, err := store.Open(testContext(t), info, 0, 7)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadAll(body); err != nil {
			t.Error(err)
		}
		_ = body.Close()
		if (body.Confirm != nil) != confirm {
			t.Errorf("%q: the body has a confirmation: %v", etag, body.Confirm != nil)
			continue
		}
		at = long.Add(time.Second)
		if confirm && !errors.Is(body.Confirm(testContext(t)), cacheclient.ErrStale) {
			t.Errorf("%q: bytes of an object that was overwritten are vouched for", etag)
		}
	}
}

// TestS3UnorderedListing shows each name once within a page, and all of them, where a server does not sort.
func TestS3UnorderedListing(t *testing.T) {
	var got []string
	d := &s3Directory{
		store: &s3Store{log: newLog().logger},
		fn:    func(i cacheclient.Info) error { got = append(got, i.Path); return nil },
	}
	for _, page := range [][]s3Item{
		{{key: "z"}, {key: "y/", common: true}},
		{{key: "m"}, {key: "n"}},
		{{key: "a/", common: true}, {key: "b"}},
		{{key: "\xff\xffz"}},
	} {
		if err := d.add(page); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.end(); err != nil {
		t.Fatal(err)
	}
	slices.Sort(got)
	if !slices.Equal(got, []string{"a", "b", "m", "n", "y", "z", "\xff\xffz"}) {
		t.Errorf("%q", got)
	}
}

// TestRecent forgets what is old, and remembers not more than it may.
func TestRecent(t *testing.T) {
	var r recent
	if r.has("a") {
		t.Error("nothing is remembered")
	}
	r.add("a")
	for i := range recentMost - 1 {
		r.add(strconv.Itoa(i))
	}
	if !r.has("a") || r.has("b") {
		t.Error("the generation before does not count")
	}
	for i := range recentMost {
		r.add("x" + strconv.Itoa(i))
	}
	if r.has("a") || len(r.young)+len(r.old) > 2*recentMost {
		t.Errorf("%d are remembered", len(r.young)+len(r.old))
	}
	r.add("b")
	r.turned = time.Now().Add(-2 * recentAge)
	if r.has("b") {
		t.Error("what is old is remembered")
	}
}

// TestS3Backends reads an object of which servers behind one name tell two ETags in turn. One that really changed shows
// its former ETag no more.
func TestS3Backends(t *testing.T) {
	for _, changed := range []bool{false, true} {
		b := &cachetest.Bucket{Objects: map[string]string{"f": "content"}, ETags: map[string]string{}}
		var n atomic.Int64
		b.Refuse = func(*http.Request, string) (int, string) {
			if at := n.Add(1); changed || at%2 == 0 {
				b.ETags["f"] = `"two"`
			} else {
				b.ETags["f"] = `"one"`
			}
			return 0, ""
		}
		store, _ := openBucket(t, b, map[string]string{})
		info := statOf(t, store, "f")
		info.Version = `"one"`
		_, _ = readConfirmed(t, store, info)
		_, _ = readConfirmed(t, store, info)
		now := statOf(t, store, "f")
		if alternates := now.Version == ""; alternates == changed {
			t.Errorf("changed %v: the version is %q", changed, now.Version)
		}
		if got, err := readConfirmed(t, store, now); err != nil || got != "content" {
			t.Errorf("changed %v: %q, %v", changed, got, err)
		}
	}
}
