package ufs

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/cachetest"
)

// TestS3ListedWithOtherETagsIsRead reads many objects that a listing told with ETags of its own, and one without a
// time: none fails, and the store says that the descriptions are of one version.
func TestS3ListedWithOtherETagsIsRead(t *testing.T) {
	b := &cachetest.Bucket{Objects: map[string]string{}, ListedETags: map[string]string{}}
	for n := range 8 {
		name := fmt.Sprint("f", n)
		b.Objects[name], b.ListedETags[name] = "content of "+name, `"listed-`+name+`"`
	}
	store, _ := openBucket(t, b, nil)
	_, infos := listNames(t, store, "")
	infos[1].ModTime = time.Time{}
	for _, i := range infos {
		if got, err := readConfirmed(t, store, i); err != nil || got != b.Objects[i.Path] {
			t.Errorf("%s: %q, %v", i.Path, got, err)
		}
		agreer, can := store.(Agreer)
		if now := statOf(t, store, i.Path); !can || !agreer.Same(i, now) {
			t.Errorf("%s: listed as %+v, looked up as %+v", i.Path, i, now)
		}
	}
	// What changed is another version all the same.
	b.Objects["f3"] = "another content"
	if _, err := readConfirmed(t, store, infos[3]); !errors.Is(err, cacheclient.ErrStale) {
		t.Errorf("a change: %v", err)
	}
	if store.(Agreer).Same(infos[3], statOf(t, store, "f3")) {
		t.Error("a change is taken for the same")
	}
}

// TestS3ListedETagsThatNoHeaderHas reads objects whose listed ETags have what a header cannot: they name no version, and
// If-Match is not asked with them.
func TestS3ListedETagsThatNoHeaderHas(t *testing.T) {
	b := &cachetest.Bucket{Objects: map[string]string{}, ListedETags: map[string]string{}}
	etags := map[string]string{
		"line": "\"a\nb\"", "return": "\"a\rb\"", "delete": "\"a\x7f\"", "no quotes": "a\n",
	}
	for name, etag := range etags {
		b.Objects[name], b.ListedETags[name] = "content of "+name, etag
	}
	store, _ := openBucket(t, b, nil)
	_, infos := listNames(t, store, "")
	if len(infos) != len(b.Objects) {
		t.Fatalf("%d objects are listed, want %d", len(infos), len(b.Objects))
	}
	for _, i := range infos {
		if got, err := readConfirmed(t, store, i); err != nil || got != b.Objects[i.Path] {
			t.Errorf("%s: %q, %v", i.Path, got, err)
		}
	}
}

// TestS3JustWrittenIsNoOtherETag overwrites an object while listings lag behind: its new ETag is of a new version.
func TestS3JustWrittenIsNoOtherETag(t *testing.T) {
	at := time.Now().Truncate(time.Second)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("prefix") != "" || isListing(r) {
			_, _ = fmt.Fprintf(w, "<ListBucketResult><Contents><Key>f</Key><Size>3</Size><ETag>%s</ETag>"+
				"<LastModified>%s</LastModified></Contents></ListBucketResult>", `"one"`, at.UTC().Format(time.RFC3339))
			return
		}
		w.Header().Set("Etag", `"two"`)
		http.ServeContent(w, r, "", at, strings.NewReader("two"))
	}))
	t.Cleanup(server.Close)
	opts := s3Options(t, server.URL)
	opts.Deferred = true
	store := mustOpen(t, "s3://b", opts)
	_, infos := listNames(t, store, "")
	if got, err := readConfirmed(t, store, infos[0]); !errors.Is(err, cacheclient.ErrStale) {
		t.Errorf("%q, %v", got, err)
	}
}

// TestS3MarksThatVanish reads an object whose ETag and time are told no more, as servers do whose proxy drops them:
// what comes is not vouched for, unless one of them is told and the same.
func TestS3MarksThatVanish(t *testing.T) {
	etag, at := `"one"`, long
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if etag != "" {
			w.Header().Set("Etag", etag)
		}
		// A proxy that drops ETags knows no condition.
		r.Header.Del("If-Match")
		http.ServeContent(w, r, "", at, strings.NewReader("content"))
	}))
	t.Cleanup(server.Close)
	opts := s3Options(t, server.URL)
	opts.Deferred = true
	store := mustOpen(t, "s3://b", opts)
	for what, c := range map[string]struct {
		etag    string
		at      time.Time
		info    cacheclient.Info
		unknown bool
	}{
		"neither is told":       {"", time.Time{}, cacheclient.Info{Version: `"one"`, ModTime: long}, true},
		"the time is told":      {"", long, cacheclient.Info{Version: `"one"`, ModTime: long}, false},
		"a weak one is told":    {`W/"one"`, time.Time{}, cacheclient.Info{Version: `"one"`}, true},
		"the time was all":      {"", time.Time{}, cacheclient.Info{ModTime: long}, true},
		"another mark is told":  {`"one"`, time.Time{}, cacheclient.Info{ModTime: long}, true},
		"the ETag is told":      {`"one"`, time.Time{}, cacheclient.Info{Version: `"one"`, ModTime: long}, false},
		"there never was one":   {"", time.Time{}, cacheclient.Info{}, false},
		"the time is told anew": {`"one"`, long, cacheclient.Info{ModTime: long}, false},
	} {
		etag, at = c.etag, c.at
		c.info.Path, c.info.Size = "f", 7
		if _, err := readConfirmed(t, store, c.info); errors.Is(err, cacheclient.ErrStale) != c.unknown ||
			err != nil && !c.unknown {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestS3OneObjectTakesNothingFromOthers has the ETags of one object after the other alternate: those of others name
// their versions as before.
func TestS3OneObjectTakesNothingFromOthers(t *testing.T) {
	b := &cachetest.Bucket{ETags: map[string]string{}, Objects: map[string]string{"good": "content"}}
	var n atomic.Int64
	b.Refuse = func(_ *http.Request, key string) (int, string) {
		if key != "" && key != "good" {
			b.ETags[key] = fmt.Sprintf(`"%d"`, n.Add(1)%2)
		}
		return 0, ""
	}
	store, log := openBucket(t, b, nil)
	for at := range 5 {
		if good := statOf(t, store, "good"); good.Version == "" {
			t.Errorf("after %d objects the version of another is lost", at)
		}
		key := fmt.Sprint("odd", at)
		b.Objects[key] = strings.Repeat("o", 3*sampleBytes)
		info := statOf(t, store, key)
		for range 3 {
			_, _ = readConfirmed(t, store, info)
		}
		if odd := statOf(t, store, key); odd.Version != "" {
			t.Errorf("the version of %s is %q", key, odd.Version)
		}
	}
	if told := strings.Count(log.text(), "different ETags"); told != 1 {
		t.Errorf("told %d times: %s", told, log.text())
	}
}

// TestS3BackendsOfOtherBytes has two servers behind one name hold two contents of one size and time: their ETags stay
// what tells them apart.
func TestS3BackendsOfOtherBytes(t *testing.T) {
	b := &cachetest.Bucket{ETags: map[string]string{}, Objects: map[string]string{"f": "one"}}
	var n atomic.Int64
	b.Refuse = func(_ *http.Request, key string) (int, string) {
		if key == "f" {
			b.Objects["f"], b.ETags["f"] = "one", `"1"`
			if n.Add(1)%2 == 0 {
				b.Objects["f"], b.ETags["f"] = "two", `"2"`
			}
		}
		return 0, ""
	}
	store, _ := openBucket(t, b, nil)
	info := statOf(t, store, "f")
	for range 6 {
		want := map[string]string{`"1"`: "one", `"2"`: "two"}[info.Version]
		if got, err := readConfirmed(t, store, info); err == nil && got != want {
			t.Errorf("%q is read of version %q", got, info.Version)
		}
	}
	if now := statOf(t, store, "f"); now.Version == "" {
		t.Error("the ETags do not count any more")
	}
}
