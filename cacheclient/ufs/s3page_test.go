package ufs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
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

// openPages opens a bucket whose listings are what page writes, and whose objects are those of b.
func openPages(t *testing.T, b *cachetest.Bucket, page func(w http.ResponseWriter, r *http.Request) (done bool)) Store {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/b/" && r.URL.Path != "/b" || !page(w, r) {
			b.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(server.Close)
	opts := s3Options(t, server.URL)
	opts.Values["provider"], opts.Deferred = providerOther, true
	opts.ResponseTimeout = pace.Limit(10 * time.Second)
	return mustOpen(t, "s3://b", opts)
}

// isListing reports whether a request is for the entries of the root.
func isListing(r *http.Request) bool { return r.URL.Query().Get("delimiter") != "" }

// hearing is a context whose listener sends on a channel.
func hearing(t *testing.T) (context.Context, <-chan struct{}) {
	t.Helper()
	heard := make(chan struct{}, 1)
	return cacheclient.OnHeard(testContext(t), func() {
		select {
		case heard <- struct{}{}:
		default:
		}
	}), heard
}

// drip writes parts, each when the one before was heard of.
func drip(t *testing.T, w http.ResponseWriter, heard <-chan struct{}, parts ...string) {
	t.Helper()
	for n, part := range parts {
		_, _ = io.WriteString(w, part)
		_ = http.NewResponseController(w).Flush()
		select {
		case <-heard:
		case <-time.After(pace.Limit(5 * time.Second)):
			t.Errorf("nothing is heard of part %d, %.40q", n, part)
			return
		}
	}
}

// TestS3PagePartsAreHeard has a page come in parts, one a row and some within one, and pages without a row: each is a
// sign of life before an entry is passed on.
func TestS3PagePartsAreHeard(t *testing.T) {
	ctx, heard := hearing(t)
	var pages atomic.Int64
	store := openPages(t, &cachetest.Bucket{}, func(w http.ResponseWriter, _ *http.Request) bool {
		if n := pages.Add(1); n < 5 {
			drip(t, w, heard,
				fmt.Sprintf("<ListBucketResult><IsTruncated>true</IsTruncated><NextMarker>m%d</NextMarker>", n),
				"</ListBucketResult>")
			return true
		}
		drip(t, w, heard, "<ListBucketResult>", strings.Repeat(" ", 5000), "<Contents><Key>a</Key>",
			"<Size>1</Size></Contents>",
			"<Contents><Key>b</Key></Contents>", "</ListBucketResult>")
		return true
	})
	n := 0
	if err := store.List(ctx, "", func(cacheclient.Info) error { n++; return nil }); err != nil || n != 2 {
		t.Errorf("%d entries, %v", n, err)
	}
}

// TestIndexPartsAreHeard has an index page come in parts that have no link, for a listing and for a lookup that reads
// the listing: each is a sign of life.
func TestIndexPartsAreHeard(t *testing.T) {
	ctx, heard := hearing(t)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		w.Header().Set("Content-Type", "text/html")
		drip(t, w, heard, "<html><head><title>Index of /</title></head>", "<body><p>words", " and words", " and more",
			`</p><a href="a">a</a>`, "</body></html>")
	}))
	t.Cleanup(server.Close)
	store := mustOpen(t, server.URL+"/", Options{Deferred: true})
	n := 0
	if err := store.List(ctx, "", func(cacheclient.Info) error { n++; return nil }); err != nil || n != 1 {
		t.Errorf("%d entries, %v", n, err)
	}
	if _, err := store.Stat(ctx, "none"); err == nil {
		t.Error("what is not there is found")
	}
}

// TestIndexWithoutAnEnd has an index go on for ever without an entry: it ends in an error.
func TestIndexWithoutAnEnd(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, err := io.WriteString(w, `<html><title>Index of /</title><a href="a">a</a>`)
		for text := "<p>" + strings.Repeat("words ", 10000) + "</p>"; err == nil; {
			_, err = io.WriteString(w, text)
		}
	}))
	t.Cleanup(server.Close)
	store := mustOpen(t, server.URL+"/", Options{Deferred: true})
	if err := store.List(testContext(t), "", func(cacheclient.Info) error { return nil }); !errors.Is(err,
		cacheclient.ErrTooLarge) {
		t.Errorf("%v", err)
	}
}

// hostileItems are what a server may write of the object "x" between its neighbours, and what is to be shown: its
// size where that is told, else that it is not known.
var hostileItems = map[string]struct {
	size, time string
	want       int64
}{
	"as it is":            {"<Size>10</Size>", "<LastModified>2020-01-01T00:00:00.000Z</LastModified>", 10},
	"no size":             {"", "<LastModified>2020-01-01T00:00:00.000Z</LastModified>", cacheclient.UnknownSize},
	"no size, no time":    {"", "", cacheclient.UnknownSize},
	"empty size":          {"<Size></Size>", "", cacheclient.UnknownSize},
	"closed size":         {"<Size/>", "", cacheclient.UnknownSize},
	"words as size":       {"<Size>many</Size>", "", cacheclient.UnknownSize},
	"size of a fraction":  {"<Size>10.0</Size>", "", cacheclient.UnknownSize},
	"size of 2^64":        {"<Size>18446744073709551616</Size>", "", cacheclient.UnknownSize},
	"size of 2^63":        {"<Size>9223372036854775808</Size>", "", cacheclient.UnknownSize},
	"size of 2^62":        {"<Size>4611686018427387904</Size>", "", cacheclient.UnknownSize},
	"size below zero":     {"<Size>-7</Size>", "", cacheclient.UnknownSize},
	"size in blanks":      {"<Size> 10\n</Size>", "", 10},
	"no time":             {"<Size>10</Size>", "", 10},
	"empty time":          {"<Size>10</Size>", "<LastModified></LastModified>", cacheclient.UnknownSize},
	"time of RFC 1123":    {"<Size>10</Size>", "<LastModified>Wed, 01 Jan 2020 00:00:00 GMT</LastModified>", 10},
	"time without a zone": {"<Size>10</Size>", "<LastModified>2020-01-01T00:00:00</LastModified>", 10},
	"no month": {
		"<Size>10</Size>", "<LastModified>0000-00-00T00:00:00.000Z</LastModified>",
		cacheclient.UnknownSize,
	},
}

// TestS3OneBadObject has one object of a page with a size or a time that is none: it is shown and asked, and its
// neighbours are as they are.
func TestS3OneBadObject(t *testing.T) {
	b := &cachetest.Bucket{Objects: map[string]string{"a": "neighbour", "x": "0123456789", "z": "neighbour"}}
	const item = "<Contents><Key>%s</Key>%s%s<ETag>%s</ETag></Contents>"
	for what, c := range hostileItems {
		store := openPages(t, b, func(w http.ResponseWriter, _ *http.Request) bool {
			_, _ = io.WriteString(w, "<ListBucketResult>")
			for _, key := range []string{"a", "x", "z"} {
				size, at := "<Size>9</Size>", "<LastModified>"+"2024-05-01T10:00:00.000Z"+"</LastModified>"
				if key == "x" {
					size, at = c.size, c.time
				}
				_, _ = fmt.Fprintf(w, item, key, size, at, b.ETag(key))
			}
			_, _ = io.WriteString(w, "</ListBucketResult>")
			return true
		})
		names, infos := listNames(t, store, "")
		if !slices.Equal(names, []string{"a", "x", "z"}) {
			t.Errorf("%s: %q", what, names)
			continue
		}
		if infos[0].Size != 9 || infos[1].Size != c.want || infos[2].Size != 9 {
			t.Errorf("%s: the sizes are %d, %d, %d", what, infos[0].Size, infos[1].Size, infos[2].Size)
		}
		for _, name := range names {
			if got, err := content(t, store, name); err != nil || got != b.Objects[name] {
				t.Errorf("%s: %s: %q, %v", what, name, got, err)
			}
		}
	}
}

// TestS3KeysThatXMLHasNot lists keys with bytes that no document of XML may have, written as they are or as references,
// by a server that does not encode them: each is shown and read.
func TestS3KeysThatXMLHasNot(t *testing.T) {
	keys := []string{"a", "bad\x01x", "cut\xff", "del\x7f", "amp&lt;", "\u00fc"}
	escapes := map[string]*strings.Replacer{
		"as they are":   strings.NewReplacer("&", "&amp;", "<", "&lt;"),
		"as references": strings.NewReplacer("&", "&#38;", "<", "&#x3C;", "\x01", "&#x1;", "\x7f", "&#127;"),
	}
	for what, escape := range escapes {
		b := &cachetest.Bucket{Objects: map[string]string{}}
		for _, key := range keys {
			b.Objects[key] = "content of " + key
		}
		store := openPages(t, b, func(w http.ResponseWriter, _ *http.Request) bool {
			_,
				_ = io.WriteString(w,
				`<?xml version="1.0"?><!-- a --><s:ListBucketResult xmlns:s="x"><Owner><Key>no</Key></Owner>`)
			for _, key := range keys {
				_, _ = fmt.Fprintf(w, "<Contents><Key>%s</Key><Size>%d</Size><Owner><Key>no</Key></Owner></Contents>",
					escape.Replace(key), len(b.Objects[key]))
			}
			_,
				_ = io.WriteString(w,
				"<CommonPrefixes><Prefix><![CDATA[d&amp;/]]></Prefix></CommonPrefixes></s:ListBucketResult>")
			return true
		})
		names, infos := listNames(t, store, "")
		want := append(slices.Clone(keys), "d&amp;/")
		slices.Sort(want)
		if !slices.Equal(names, want) {
			t.Errorf("%s: %q", what, names)
		}
		for _, i := range infos {
			if i.Dir {
				continue
			}
			if got, err := content(t, store, i.Path); err != nil || got != b.Objects[i.Path] {
				t.Errorf("%s: %q: %q, %v", what, i.Path, got, err)
			}
		}
	}
}

// TestS3KeysThatAreCalledEncoded lists keys that a server calls encoded, and does not encode, or does: each is shown by
// its own name, and the server is asked once.
func TestS3KeysThatAreCalledEncoded(t *testing.T) {
	for _, encodes := range []bool{false, true} {
		for what, keys := range map[string][]string{
			"it has to be asked": {"a+b.txt", "plain", "x%41y"}, "the page shows it": {"100%.txt", "a+b.txt", "sp ace"},
			"both are there": {"a b", "c+d"},
		} {
			b := &cachetest.Bucket{Objects: map[string]string{}}
			for _, key := range keys {
				b.Objects[key] = "content of " + key
			}
			store := openPages(t, b, func(w http.ResponseWriter, _ *http.Request) bool {
				_, _ = io.WriteString(w, "<ListBucketResult><EncodingType>url</EncodingType>")
				for _, key := range keys {
					if encodes {
						key = url.QueryEscape(key)
					}
					_, _ = fmt.Fprintf(w, "<Contents><Key>%s</Key></Contents>", key)
				}
				_, _ = io.WriteString(w, "</ListBucketResult>")
				return true
			})
			for range 2 {
				if names, _ := listNames(t, store, ""); !slices.Equal(names, keys) {
					t.Errorf("%s, encodes %v: %q", what, encodes, names)
				}
				if n := b.Requests.Load(); n > 2 {
					t.Errorf("%s, encodes %v: it was asked %d times", what, encodes, n)
				}
			}
			for _, key := range keys {
				if got, err := content(t, store, key); err != nil || got != b.Objects[key] {
					t.Errorf("%s, encodes %v: %q: %q, %v", what, encodes, key, got, err)
				}
			}
		}
	}
}

// circles are listings that never come to an end: what a page has, by its number.
var circles = map[string]func(n int64) (keys []string, next string){
	"two pages in turn": func(n int64) ([]string, string) {
		return []string{fmt.Sprint("in", n%2)},
			fmt.Sprint("t", n%2)
	},
	"three pages after a hundred": func(n int64) ([]string, string) { return nil, fmt.Sprint("t", min(n, 100+n%3)) },
	"one page by new tokens":      func(n int64) ([]string, string) { return []string{"in"}, fmt.Sprint("t", n) },
	"keys go back": func(n int64) ([]string, string) {
		return []string{fmt.Sprintf("k%03d", n%7)},
			fmt.Sprint("t", n)
	},
	"empty pages":             func(n int64) ([]string, string) { return nil, fmt.Sprint("t", n) },
	"one prefix on all pages": func(n int64) ([]string, string) { return []string{"d/"}, fmt.Sprint("t", n) },
	"names that cannot be, in circle": func(n int64) ([]string, string) {
		return []string{"//" + strconv.FormatInt(n%5, 10)}, fmt.Sprint("t", n)
	},
}

// TestS3ListingThatNeverEnds has pages go in a circle, or on without anything new, by either version: it is an error
// that says so, after some pages.
func TestS3ListingThatNeverEnds(t *testing.T) {
	for what, pages := range circles {
		var n int64
		var c course
		var err error
		for err == nil && n < 2*mostBarren {
			n++
			page := s3Page{}
			var keys []string
			keys, page.next = pages(n)
			for _, key := range keys {
				page.items = append(page.items, s3Item{key: key, common: key == "d/"})
			}
			err = c.add(page)
		}
		if err == nil || !strings.Contains(err.Error(), "the server's listing goes") {
			t.Errorf("%s: %d pages, %v", what, n, err)
		}
	}
	for _, version := range []string{"1", "2"} {
		var n atomic.Int64
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			at := n.Add(1) % 2
			_,
				_ = fmt.Fprintf(w,
				"<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>t%d</NextContinuationToken>"+
					"<NextMarker>t%d</NextMarker><Contents><Key>in%d</Key><Size>1</Size></Contents></ListBucketResult>",
				at,
				at, at)
		}))
		opts := s3Options(t, server.URL)
		opts.Values["list_version"], opts.Deferred = version, true
		store := mustOpen(t, "s3://b", opts)
		err := store.List(testContext(t), "", func(cacheclient.Info) error { return nil })
		if err == nil || !strings.Contains(err.Error(), "circle") || n.Load() > 20 {
			t.Errorf("version %s: %d pages, %v", version, n.Load(), err)
		}
		server.Close()
	}
}

// TestS3LongListingIsNoCircle takes long listings that are right: of many pages, with pages that bring nothing, and a
// prefix on several.
func TestS3LongListingIsNoCircle(t *testing.T) {
	var c course
	for n := range 5000 {
		page := s3Page{next: fmt.Sprint("t", n)}
		switch n % 3 {
		case 0:
			page.items = []s3Item{{key: fmt.Sprintf("k%06d", n)}, {key: fmt.Sprintf("k%06d+", n)}}
		case 1:
			page.items = []s3Item{{key: "p/", common: true}}
		}
		if err := c.add(page); err != nil {
			t.Fatalf("page %d: %v", n, err)
		}
	}
}

// TestS3PageFailsOnTheWay has each page of a listing fail once, for a moment, but the first: the listing goes on where
// it was.
func TestS3PageFailsOnTheWay(t *testing.T) {
	const pages = 9
	asked := map[int]int{}
	var mu sync.Mutex // guards asked
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		at, _ := strconv.Atoi(r.URL.Query().Get("continuation-token"))
		mu.Lock()
		defer mu.Unlock()
		if asked[at]++; at > 0 && asked[at] == 1 {
			switch at % 3 {
			case 0:
				w.Header().Set("Retry-After", "0")
				w.WriteHeader(http.StatusServiceUnavailable)
			case 1:
				w.WriteHeader(http.StatusInternalServerError)
			case 2:
				_, _ = io.WriteString(w, "<ListBucketResult><IsTruncated>false</IsTruncated><Contents>")
			}
			return
		}
		_, _ = fmt.Fprintf(w, "<ListBucketResult><IsTruncated>%t</IsTruncated>"+
			"<NextContinuationToken>%d</NextContinuationToken>"+
			"<Contents><Key>k%d</Key><Size>1</Size></Contents></ListBucketResult>", at < pages, at+1, at)
	}))
	t.Cleanup(server.Close)
	opts := s3Options(t, server.URL)
	opts.Values["list_version"], opts.Deferred = "2", true
	entries := 0
	err := mustOpen(t, "s3://b", opts).List(testContext(t), "", func(cacheclient.Info) error { entries++; return nil })
	if err != nil || entries != pages+1 || asked[0] != 1 {
		t.Errorf("%d entries, the first page is asked for %d times: %v", entries, asked[0], err)
	}
}

// TestS3PageOfManyEntries has a page have more tiny entries than any server sends.
func TestS3PageOfManyEntries(t *testing.T) {
	for _, one := range []string{
		"<Contents><Key>k</Key></Contents>", "<CommonPrefixes><Prefix>p/</Prefix></CommonPrefixes>",
	} {
		for n, is := range map[int]error{mostItems: nil, mostItems + 10: cacheclient.ErrTooLarge} {
			var page listPage
			text := "<ListBucketResult>" + strings.Repeat(one, n) + "</ListBucketResult>"
			if err := readPage(strings.NewReader(text), &page); !errors.Is(err, is) || is == nil && err != nil {
				t.Errorf("%d times %s: %v", n, one, err)
			}
		}
	}
}

// TestS3ObjectsOfNoOrderDoNotWait has a server list its objects backwards: none of them waits for a directory of its
// name, as in order only those do that the present name continues.
func TestS3ObjectsOfNoOrderDoNotWait(t *testing.T) {
	store := &s3Store{log: slog.New(slog.DiscardHandler)}
	names := map[string]bool{}
	d := &s3Directory{store: store, fn: func(i cacheclient.Info) error { names[i.Path] = i.Dir; return nil }}
	for n := 1000; n > 0; n-- {
		if err := d.add([]s3Item{{key: fmt.Sprintf("k%04d", n)}}); err != nil {
			t.Fatal(err)
		}
		if len(d.waiting) > 1 {
			t.Fatalf("%d objects wait at the %dth", len(d.waiting), n)
		}
	}
	// In order they do wait.
	for _, key := range []string{"x", "x-", "x-1", "x-1/below", "x/below", "y"} {
		if err := d.add([]s3Item{{key: key}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.end(); err != nil {
		t.Fatal(err)
	}
	if len(names) != 1004 || !names["x"] || names["x-"] || !names["x-1"] || names["y"] {
		t.Errorf("%d names are listed", len(names))
	}
}

// FuzzS3Page reads pages of any bytes: without a panic, and never a size that is below zero and known.
func FuzzS3Page(f *testing.F) {
	for _, c := range hostileItems {
		f.Add([]byte("<ListBucketResult><Contents><Key>x</Key>" + c.size + c.time + "</Contents></ListBucketResult>"))
	}
	for _, s := range []string{
		"<ListBucketResult><IsTruncated>true</IsTruncated><NextMarker>&#x1;&#xD800;&#x110000;&#99999999999;&amp</NextMarker></ListBucketResult>",
		"<ListBucketResult><Contents><Key>\x01\xff\x00</Key><Size>9223372036854775807</Size></Contents></ListBucketResult>",
		"<ListBucketResult><Contents/><Contents><Key/></Contents></ListBucketResult>", "<![CDATA[<ListBucketResult>]]>",
		"<listbucketresult><title><Contents>", strings.Repeat("<ListBucketResult>", 20),
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var page listPage
		if err := readPage(strings.NewReader(string(data)), &page); err != nil {
			return
		}
		for _, i := range page.items() {
			if i.size < 0 && i.size != cacheclient.UnknownSize {
				t.Errorf("%q has %d bytes", i.key, i.size)
			}
		}
	})
}
