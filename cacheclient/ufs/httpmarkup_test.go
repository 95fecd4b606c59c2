package ufs

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"millrace.io/millrace/cacheclient"
)

// noIndexes are pages that servers send with status 200 in place of an index, and those that look like them are indexes
// below.
var noIndexes = map[string]string{
	"sign in": "<html><title>Sign in</title><form action='/login'><input name=u></form><a " +
		"href='forgot'>Forgot?</a>",
	"log in, after": "<html><title>Log in - Corp</title><a href='forgot'>Forgot?</a><form><input " +
		"type='password'></form>",
	"a password": "<html><title>Corp</title><form><input type=PassWord></form><a href='forgot'>Forgot?</a><a " +
		"href='help'>Help</a>",
	"a heading": "<html><title>Corp</title><h1>Please sign in</h1><form><input name=u></form><a " +
		"href='forgot'>Forgot?</a>",
	"a project":       "<html><title>My project</title><pre>make install</pre><a href='http://x.example/'>x</a>",
	"a text":          "<pre>nothing here</pre>",
	"a foreign link":  "<pre></pre><a href='http://x.example/'>",
	"session expired": "<title>Your session has expired</title><form></form><a href='again'>again</a>",
}

var indexesAllTheSame = map[string]struct {
	page string
	want []string
}{
	"by hand": {"<html><h1>Our files</h1><a href='a.bin'>a</a> <a href='b/'>b</a>", []string{"a.bin", "b/"}},
	"with a search": {
		"<html><title>Files</title><form><input type=search></form><a href='a.bin'>a</a>",
		[]string{"a.bin"},
	},
	"called login": {"<html><title>login</title><a href='a.bin'>a</a>", []string{"a.bin"}},
	"with a sign-in": {
		"<title>Index of /</title><form><input type=password></form><a href='a.bin'>a</a>",
		[]string{"a.bin"},
	},
	"sign-in and parent": {"<title>files</title><form><input type=password></form><a href='../'>up</a><a " +
		"href='a'>a</a>", []string{"a"}},
	"sign-in and sorted": {"<title>f</title><form><input type=password></form><a href='a'>a</a><a " +
		"href='?C=N;O=D'>n</a>", []string{"a"}},
	"sign-in and many": {
		"<title>f</title><form><input type=password></form><a href=a><a href=b><a href=c><a href=d><a href=e>",
		[]string{"a", "b", "c", "d", "e"},
	},
	"only a list": {"<ul><li><a href='one.tar'>one</a></ul>", []string{"one.tar"}},
}

// TestPagesThatAreNoIndex tells sign-in pages and other pages of status 200 from the indexes that look like them.
func TestPagesThatAreNoIndex(t *testing.T) {
	for what, page := range noIndexes {
		if names, err := parsePage(t, "http://h/d/", page); !errors.Is(err, errNoIndex) || len(names) > 0 {
			t.Errorf("%s: %q, %v", what, names, err)
		}
	}
	for what, c := range indexesAllTheSame {
		if names, err := parsePage(t, "http://h/d/", c.page); err != nil || !slices.Equal(names, c.want) {
			t.Errorf("%s: %q, %v", what, names, err)
		}
	}
	for what, text := range map[string]string{
		"an error": `{"error":"maintenance","paths":[]}`, "nothing else": `{"paths":[]}`,
		"both": `{"href":"/","kind":"Index","error":"x","paths":[]}`,
	} {
		if _, _, err := parseAs(t, "http://h/d/", "json", text); !errors.Is(err, errNoIndex) {
			t.Errorf("JSON, %s: %v", what, err)
		}
	}
	if _, _, err := parseAs(t, "http://h/d/", "json", `{"href":"/","kind":"Index","paths":[]}`); err != nil {
		t.Errorf("an empty directory of dufs: %v", err)
	}
	var many strings.Builder
	many.WriteString("<title>Files</title><form></form>")
	for n := range 3 * mostDoubtful {
		fmt.Fprintf(&many, "<a href='f%d'>f</a>", n)
	}
	names, err := parsePage(t, "http://h/d/", many.String())
	if err != nil || len(names) != 3*mostDoubtful || names[mostDoubtful] != fmt.Sprint("f", mostDoubtful) {
		t.Errorf("a long page with a form: %d names, %v", len(names), err)
	}
}

// TestSignInInPlaceOfAnIndex has a server send a page to sign in by for everything, after its indexes were read: its
// directories are an error, and no file is called missing, or a directory, or that page.
func TestSignInInPlaceOfAnIndex(t *testing.T) {
	var signedOut atomic.Bool
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		kind, text := "application/octet-stream", "content"
		switch {
		case signedOut.Load():
			kind, text = "text/html", "<html><title>Corp</title><p>Welcome</p><a href='forgot'>Forgot?</a></html>"
		case r.URL.Path == "/":
			kind, text = "text/html", "<html><title>Index of /</title><a href='a'>a</a><a href='b'>b</a></html>"
		}
		w.Header().Set("Content-Type", kind)
		_, _ = io.WriteString(w, text)
	}))
	t.Cleanup(server.Close)
	store := mustOpen(t, server.URL+"/", Options{Deferred: true})
	if names, _ := listNames(t, store, ""); !slices.Equal(names, []string{"a", "b"}) {
		t.Fatalf("%q", names)
	}
	signedOut.Store(true)
	if err := store.List(testContext(t), "", func(cacheclient.Info) error { return nil }); !errors.Is(err, errNoIndex) {
		t.Errorf("the listing: %v", err)
	}
	for _, name := range []string{"a", "b", "none"} {
		if info, err := store.Stat(testContext(t), name); !errors.Is(err, errNoIndex) {
			t.Errorf("%s: %+v, %v", name, info, err)
		}
	}
}

// TestLinksThatNoURLHas shows links with a percent sign that begins no escape, and with bytes that control, as browsers
// follow them, and reads them.
func TestLinksThatNoURLHas(t *testing.T) {
	files := []string{"100%.txt", "5%2", "%zz", "c\x01d", "t\x7fz", "%", "a%b", "A", "p|q", "k[1]"}
	links := append(slices.Clone(files), "50%off/")
	links[slices.Index(links, "A")] = "%41"
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := strings.TrimPrefix(r.URL.Path, "/")
		switch {
		case name == "":
			w.Header().Set("Content-Type", "text/html")
			_, _ = io.WriteString(w, "<html><title>Index of /</title><a href='"+strings.Join(links, "'>x</a><a href='")+
				"'>x</a></html>")
		case name == "50%off/":
			w.Header().Set("Content-Type", "text/html")
			_, _ = io.WriteString(w, "<html><title>Index of /</title><a href='/50%off/x%y'>x</a></html>")
		case slices.Contains(files, name), name == "50%off/x%y":
			w.Header().Set("Content-Type", "application/octet-stream")
			http.ServeContent(w, r, "", long, strings.NewReader("content of "+name))
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(server.Close)
	store := mustOpen(t, server.URL+"/", Options{})
	names, _ := listNames(t, store, "")
	want := append(slices.Clone(files), "50%off/")
	slices.Sort(want)
	if !slices.Equal(names, want) {
		t.Errorf("%q", names)
	}
	if below, _ := listNames(t, store, "50%off"); !slices.Equal(below, []string{"x%y"}) {
		t.Errorf("50%%off has %q", below)
	}
	for _, name := range append(files, "50%off/x%y") {
		if got, err := content(t, store, name); err != nil || got != "content of "+name {
			t.Errorf("%q: %q, %v", name, got, err)
		}
	}
}

// TestLiteralNames takes each address as it is, with the option no_escape, and asks for it so.
func TestLiteralNames(t *testing.T) {
	base := &url.URL{Scheme: "http", Host: "h", Path: "/50%/", RawPath: "/50%25/"}
	for address, want := range map[string]struct{ name, sent string }{
		"100%.txt":    {"100%.txt", "/50%25/100%.txt"},
		"50%25":       {"50%25", "/50%25/50%25"},
		"x%41y":       {"x%41y", "/50%25/x%41y"},
		"plain":       {"plain", "/50%25/plain"},
		"a b":         {"a b", "/50%25/a%20b"},
		"/50%25/deep": {"deep", "/50%25/deep"},
		"./%zz":       {"%zz", "/50%25/%zz"},
	} {
		var got []string
		i := index{base: base, literal: true, entry: func(name string, _ bool) error {
			got = append(got, name)
			return nil
		}}
		err := i.parseHTML(strings.NewReader("<title>Index of</title><a href='" + address + "'>"))
		if err != nil || !slices.Equal(got, []string{want.name}) {
			t.Errorf("%q: %q, %v", address, got, err)
			continue
		}
		if r := literalRequest(base, got[0]); r.url.RequestURI() != want.sent || r.url.Host != "h" {
			t.Errorf("%q: asked for as %q at %q", address, r.url.RequestURI(), r.url.Host)
		}
	}
}

// TestNamesThatAreBoth lists names as files and as directories, in either order: what the server knows of each is
// shown.
func TestNamesThatAreBoth(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/":
			w.Header().Set("Content-Type", "text/html")
			_,
				_ = io.WriteString(w,
				`<title>Index of /</title><a href="foo"><a href="foo/"><a href="bar/"><a href="bar"><a href="dir/">`+
					`<a href="last/"><a href="x"><a href="last">`)
		case "/bar/", "/dir/":
			w.Header().Set("Content-Type", "text/html")
			_, _ = io.WriteString(w, `<title>Index of /</title><a href="in">`)
		case "/foo", "/last", "/x":
			w.Header().Set("Content-Type", "application/octet-stream")
			http.ServeContent(w, r, "", long, strings.NewReader("content"))
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(server.Close)
	store := mustOpen(t, server.URL+"/", Options{})
	kinds := map[string]bool{}
	err := store.List(testContext(t), "", func(i cacheclient.Info) error {
		// A directory counts for a name, as in the cache.
		kinds[i.Path] = kinds[i.Path] || i.Dir
		return nil
	})
	want := map[string]bool{"foo": false, "bar": true, "dir": true, "last": false, "x": false}
	if err != nil || !maps.Equal(kinds, want) {
		t.Errorf("%v, %v", kinds, err)
	}
	for _, name := range []string{"foo", "last"} {
		if got, err := content(t, store, name); err != nil || got != "content" {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}
