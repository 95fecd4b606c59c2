package ufs

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"millrace.io/millrace/cacheclient/cachetest"
	"millrace.io/millrace/sanity/pace"
)

func TestParseSource(t *testing.T) {
	for in, want := range map[string]source{
		"/a/dir/":               {scheme: schemeLocal, dir: "/a/dir"},
		"/a%20b/../c":           {scheme: schemeLocal, dir: "/c"},
		"file:///a%20b":         {scheme: schemeLocal, dir: "/a b"},
		"file://localhost/a":    {scheme: schemeLocal, dir: "/a"},
		"s3://bucket":           {scheme: schemeS3, bucket: "bucket"},
		"s3://bucket/a b/c%20/": {scheme: schemeS3, bucket: "bucket", prefix: "a b/c%20"},
		"S3://bucket/a@b:c":     {scheme: schemeS3, bucket: "bucket", prefix: "a@b:c"},
	} {
		got, err := parseSource(in)
		if err != nil || got.scheme != want.scheme || got.dir != want.dir || got.bucket != want.bucket ||
			got.prefix != want.prefix || got.show != in {
			t.Errorf("%q: %+v, %v", in, got, err)
		}
	}
	for in, want := range map[string]string{
		"http://host":              "http://host/",
		"HTTPS://host:8443/a":      "https://host:8443/a/",
		"https://host/a%2Fb%20c/":  "https://host/a%2Fb%20c/",
		"http://[::1]:80/a@b:c/":   "http://[::1]:80/a@b:c/",
		"http://host/%E6%97%A5?/x": "",
	} {
		got, err := parseSource(in)
		if err == nil != (want != "") || err == nil && got.base.String() != want {
			t.Errorf("%q: %v, %v", in, got.base, err)
		}
	}
}

func TestParseSourceErrors(t *testing.T) {
	for in, want := range map[string]string{
		"":                               "is empty",
		"relative/dir":                   "neither a URL nor an absolute path",
		"ftp://host/":                    `unknown scheme "ftp"; accepted are http`,
		"http:///path":                   "no host",
		"http://host/?token=hunter2":     "query",
		"http://host/#hunter2":           "fragment",
		"http://me:hunter2@host/":        "options file",
		"http://hunter2@host/":           "options file",
		"http://me:hun/ter2@host/":       "...@host",
		"http://me:hun%zzter2@host/":     "...@host",
		"https://host/100%":              "%25",
		"s3://key:hunter2@bucket/prefix": "access_key_id",
		"s3://":                          "no bucket",
		"s3://bucket/a//b":               "prefix",
		"s3://bucket/../b":               "prefix",
		"file://host/a":                  "names a host",
		"file://a":                       "names a host",
		"file:///":                       "",
		"/a\x00b":                        "control character",
	} {
		_, err := parseSource(in)
		if want == "" {
			if err != nil {
				t.Errorf("%q: %v", in, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hun") ||
			strings.Contains(err.Error(), "ter2") {
			t.Errorf("%q: %v", in, err)
		}
	}
}

func TestOpenErrors(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	write(t, file, "x")
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/text/" {
			_, _ = w.Write([]byte("just text"))
			return
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = w.Write([]byte(`<html><title>Welcome</title><a href="https://elsewhere.invalid/">elsewhere</a></html>`))
	}))
	t.Cleanup(page.Close)
	open := filepath.Join(dir, "open")
	write(t, open, "user = me\npass = hunter2\n")
	if err := os.Chmod(open, 0o644); err != nil {
		t.Fatal(err)
	}
	bad := filepath.Join(dir, "bad")
	write(t, bad, "# a comment\n\nuser\n")
	for name, c := range map[string]struct {
		source string
		opts   Options
		want   string
	}{
		"no directory": {source: dir + "/none", want: "does not exist"},
		"no dir":       {source: file, want: "it is a file and not a directory; give the directory"},
		"no index":     {source: page.URL, want: "no directory index"},
		"no page":      {source: page.URL + "/text/", want: "no directory index"},
		"no host":      {source: "http://no-such-host.invalid/", want: "no such host"},
		"unknown option": {
			source: page.URL, opts: Options{Values: map[string]string{"colour": "red"}},
			want: `option "colour" is not known to http sources; accepted are ca_cert,`,
		},
		"local option": {
			source: dir, opts: Options{Values: map[string]string{"links": "true"}},
			want: "accepted are copy_links",
		},
		"s3 option": {
			source: "s3://b", opts: Options{Values: map[string]string{"nothing": "x"}},
			want: "access_key_id",
		},
		"s3 refused": {
			source: "s3://b", opts: Options{Values: map[string]string{"decompress": "true"}},
			want: "is not supported: the size",
		},
		"secret argument": {
			source: page.URL, opts: Options{Values: map[string]string{"pass": "hunter2"}},
			want: "pass=env:VARIABLE",
		},
		"s3 key argument": {
			source: "s3://b", opts: Options{Values: map[string]string{"secret_access_key": "hunter2"}},
			want: "secret_access_key=env:VARIABLE",
		},
		"headers": {
			source: page.URL, opts: Options{Values: map[string]string{"headers": "X,hunter2"}},
			want: "headers=env:VARIABLE",
		},
		"no variable": {
			source: page.URL, opts: Options{Values: map[string]string{"pass": "env:UFS_TEST_UNSET"}},
			want: `"UFS_TEST_UNSET", which is not set`,
		},
		"no boolean": {
			source: dir, opts: Options{Values: map[string]string{"copy_links": "maybe"}},
			want: `option copy_links: "maybe" is no boolean`,
		},
		"no file":        {source: dir, opts: Options{File: dir + "/none"}, want: "no such file"},
		"readable file":  {source: page.URL, opts: Options{File: open}, want: "chmod 600"},
		"bad file":       {source: page.URL, opts: Options{File: bad}, want: "line 3 is not name = value"},
		"directory file": {source: page.URL, opts: Options{File: dir}, want: "is a directory"},
		"no ca": {
			source: page.URL, opts: Options{Values: map[string]string{"ca_cert": dir + "/none"}},
			want: "option ca_cert",
		},
		"no ca, s3": {
			source: "s3://b", opts: Options{Values: map[string]string{"ca_cert": dir + "/none"}},
			want: "option ca_cert",
		},
		"half a pair": {
			source: page.URL, opts: Options{Values: map[string]string{"client_cert": file}},
			want: "together",
		},
	} {
		store, err := Open(testContext(t), c.source, c.opts)
		if err == nil {
			_ = store.Close()
		}
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil && strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: not one sentence: %v", name, err)
		}
	}
}

func TestOptionsFile(t *testing.T) {
	t.Setenv("UFS_TEST_PASS", "from the environment")
	name := filepath.Join(t.TempDir(), "options")
	write(t, name, "\ufeff# comment\n\n user=me\n pass = a = b # c\nno_head = true\r\n")
	got, err := Options{File: name, Values: map[string]string{"no_head": "false"}}.resolve(testContext(t),
		source{scheme: schemeHTTP})
	if err != nil || got["user"] != "me" || got["pass"] != "a = b # c" || got["no_head"] != "false" {
		t.Errorf("%v, %v", got, err)
	}
	// What names the environment is no secret itself.
	write(t, name, "pass = env:UFS_TEST_PASS\n")
	if err := os.Chmod(name, 0o644); err != nil {
		t.Fatal(err)
	}
	got, err = Options{File: name}.resolve(testContext(t), source{scheme: schemeHTTP})
	if err != nil || got["pass"] != "from the environment" {
		t.Errorf("%v, %v", got, err)
	}
}

// TestNoRcloneConfig checks that neither rclone's configuration file nor its environment variables are read, and no
// file is written.
func TestNoRcloneConfig(t *testing.T) {
	pace.Long(t)
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("XDG_CONFIG_HOME", filepath.Join(home, "config"))
	t.Setenv("RCLONE_S3_PREFIX", "x")
	t.Setenv("RCLONE_S3_ENDPOINT", "http://127.0.0.1:1")
	t.Setenv("RCLONE_CONFIG_S3_ENDPOINT", "http://127.0.0.1:1")
	sharedTree(t)
	names, _ := listNames(t, mustOpen(t, "s3://bigtree", s3Options(t, cachetest.ServeS3(t, base, "", "0s"))), "")
	if !slices.Equal(names, []string{"sparse"}) {
		t.Errorf("%q", names)
	}
	err := filepath.Walk(home, func(p string, fi os.FileInfo, err error) error {
		if err == nil && !fi.IsDir() {
			t.Errorf("%s was written", p)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// parseAs reads a page of a type as the index of base.
func parseAs(tb testing.TB, base, kind, page string) ([]string, *index, error) {
	tb.Helper()
	u, err := url.Parse(base)
	if err != nil {
		tb.Fatal(err)
	}
	var names []string
	i := &index{base: u, entry: func(name string, dir bool) error {
		if dir {
			name += "/"
		}
		names = append(names, name)
		return nil
	}}
	switch kind {
	case "json":
		err = i.parseJSON(strings.NewReader(page))
	case "xml":
		err = i.parseXML(strings.NewReader(page))
	default:
		err = i.parseHTML(strings.NewReader(page))
	}
	return names, i, err
}

func parsePage(tb testing.TB, base, page string) ([]string, error) {
	tb.Helper()
	names, _, err := parseAs(tb, base, "html", page)
	return names, err
}

var indexPages = map[string]struct {
	page string
	want []string
	no   bool
}{
	"apache": {
		page: `<!DOCTYPE HTML PUBLIC "-//W3C//DTD HTML 3.2 Final//EN"><html><head><title>Index of /d</title></head><body><h1>Index of /d</h1><table>
<tr><th><a href="?C=N;O=D">Name</a></th></tr><tr><td><a href="/">Parent Directory</a></td></tr>
<tr><td><a href="a%20b.txt"><img src="/icons/text.gif"></a></td><td><a href="a%20b.txt">a b.txt</a></td></tr><tr><td><a href="sub/">sub/</a></td></tr></table></body></html>`,
		want: []string{"a b.txt", "sub/"},
	},
	"nginx": {
		page: "<html><head><title>Index of /d/</title></head><body><h1>Index of /d/</h1><hr><pre><a " +
			"href=\"../\">../</a>\n<a href=\"x%3Fy\">x?y</a> 01-Jan-2024 00:00 5\n</pre></body></html>",
		want: []string{"x?y"},
	},
	"lighttpd": {
		page: `<!DOCTYPE html><html><head><title>Index of /d/</title></head><body><h2>Index of /d/</h2><table><tbody><tr class="d"><td class="n"><a href="../">..</a>/</td></tr><tr class="d"><td class="n"><a href="sub/">sub</a>/</td></tr><tr><td class="n"><a href="f.iso">f.iso</a></td></tr></tbody></table></body></html>`,
		want: []string{"sub/", "f.iso"},
	},
	"caddy": {
		page: `<!DOCTYPE html><html><head><title>d/</title></head><body><h1><a href="/">/</a><a href="">d</a></h1><a href="./?sort=size&order=asc">Size</a><a href="..">Up</a><a href="./sub/">sub</a><a href="./a&amp;b">a&amp;b</a></body></html>`,
		want: []string{"sub/", "a&b"},
	},
	"go, empty": {page: "<!doctype html>\n<meta name=\"viewport\" " +
		"content=\"width=device-width\">\n<pre>\n</pre>\n"},
	"python, empty": {page: "<!DOCTYPE HTML><html><head><title>Directory listing for " +
		"/d/</title></head><body><h1>Directory listing for /d/</h1><hr><ul></ul><hr></body></html>"},
	"no index":   {page: `<html><title>Welcome</title><body><a href="https://example.com/">x</a><a href="/login?next=/d/">y</a></body></html>`, no: true},
	"empty page": {page: "", no: true},
	"odd links": {
		page: `<a href="http://h/d/abs"><a href="/d/rooted"><a href="https://h/d/scheme"><a href="http://h:81/d/port"><a href="//other/d/x"><a href="deep/er"><a href="a%2Fb"><a href="a%2f"><a href="%2e%2e/"><a href="."><a href=""><a>none</a><a href="#top"><a href="q?x"><a href="bad%zz"><a href="nul%00"><a href="mailto:x@y"><a href="javascript:void(0)"><a href="./c:d"><a href="-dash"><a href="%E6%97%A5"><a href=" spaced "><A HREF='UP'>`,
		want: []string{
			"abs", "rooted", "scheme", "deep/", "a/b", "a/", "bad%zz", "nul\x00", "c:d", "-dash", "日",
			"spaced", "UP",
		},
	},
	"base": {
		page: `<html><head><base href="/d/sub/"><title>Index of /</title></head><a href="../a"><a href="/d/b"><a href="c"><a href="../../e/f">`,
		want: []string{"a", "b", "sub/"},
	},
	"base of another host": {
		page: `<base href="https://cdn.example/d/"><title>Index of /</title><a href="a"><a href="http://h/d/b">`,
		want: []string{"b"},
	},
	"nested": {
		page: `<title>Index of /</title><a href="build/100/i586/"><a href="build/101/i586/"><a href="f">`,
		want: []string{"build/", "f"},
	},
	"white space": {page: "<title>Index of /</title><a href=\" a\n\tb.txt\t\">", want: []string{"ab.txt"}},
	"entities": {
		page: `<title>Index of /</title><a href="a&amp;b&#x2e;txt"><a href="&eacute;">`,
		want: []string{"a&b.txt", "é"},
	},
}

func TestParseIndex(t *testing.T) {
	for name, c := range indexPages {
		got, err := parsePage(t, "http://h/d/", c.page)
		if !slices.Equal(got, c.want) || errors.Is(err, errNoIndex) != c.no || err != nil && !c.no {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if _, err := parsePage(t, "http://h/d/", `<title>Index of</title><a href="x`); !errors.Is(err,
		io.ErrUnexpectedEOF) {
		t.Errorf("a page that ends in a link: %v", err)
	}
	if _, err := parsePage(t, "http://h/d/", strings.Repeat("x", 2*maxToken)); !errors.Is(err, errNoIndex) {
		t.Errorf("a huge text: %v", err)
	}
}

func TestParseContentRange(t *testing.T) {
	for in, want := range map[string]contentRange{
		"bytes 0-9/10": {0, 9, 10}, "bytes 5-9/*": {5, 9, -1}, "bytes */10": {-1, -1, 10}, "BYTES 1-1/2": {1, 1, 2},
	} {
		if got, ok := parseContentRange(in); !ok || got != want {
			t.Errorf("%q: %+v", in, got)
		}
	}
	for _, in := range []string{
		"", "bytes", "bytes 0-9", "bytes 9-0/10", "bytes 0-10/10", "bytes -5/10", "bytes */*",
		"items 0-9/10", "bytes 0-9/-1", "bytes 0-99999999999999999999/*",
	} {
		if got, ok := parseContentRange(in); ok {
			t.Errorf("%q: %+v", in, got)
		}
	}
}

func FuzzParseSource(f *testing.F) {
	for _, seed := range []string{
		"", "/a", "http://host/path", "https://me:pw@h/", "s3://b/p", "file:///x%20y",
		"ftp://x", "http://[::1]:80/%zz", "http://h/?q#f", "s3://a@b/c", "http://me:p/w@h/",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		src, err := parseSource(s)
		if err != nil {
			if strings.ContainsAny(err.Error(), "\n\x00") {
				t.Errorf("%q: not one sentence: %q", s, err)
			}
			return
		}
		switch src.scheme {
		case schemeHTTP:
			if src.base.User != nil || src.base.RawQuery != "" || src.base.Hostname() == "" ||
				!strings.HasSuffix(src.base.EscapedPath(), "/") {
				t.Errorf("%q: %v", s, src.base)
			}
		case schemeS3:
			if src.bucket == "" || strings.Contains(src.bucket, "/") || !validPath(src.prefix) {
				t.Errorf("%q: %+v", s, src)
			}
		case schemeLocal:
			if !filepath.IsAbs(src.dir) || filepath.Clean(src.dir) != src.dir {
				t.Errorf("%q: %+v", s, src)
			}
		}
	})
}

// listings are pages of real servers, or as their sources make them, and what they mean.
var listings = map[string][]string{
	"nginx.html": {
		"dir with space/", "sub/", "a b.txt", "caf\xe9.bin", "naïve.bin", "pipe", `q"uo<te>&.bin`,
		"tab\tname",
	},
	"nginx.json":      {"dir with space/", "sub/", "a b.txt", "caf\xe9.bin", "naïve.bin", `q"uo<te>&.bin`, "tab\tname"},
	"nginx.xml":       {"dir with space/", "sub/", "a b.txt", "caf\xe9.bin", "naïve.bin", `q"uo<te>&.bin`, "tab\tname"},
	"caddy.json":      {"dir with space/", "linked/", "a b.txt", "caf\xe9.bin", `q"uo<te>&.bin`, "colon:name"},
	"caddy.html":      {"dir with space/", "a b.txt"},
	"dufs.json":       {"dir with space/", "linked/", "a b.txt", "naïve.bin", `q"uo<te>&.bin`},
	"h5ai.html":       {"dir with space/", "a b.txt", "naïve.bin"},
	"h5ai-empty.html": nil,
	"fancyindex.html": {"dir with space/", "a b.txt", "caf\xe9.bin", `q"uo<te>&.bin`},
}

func readListing(tb testing.TB, name string) (kind, page string) {
	tb.Helper()
	page = readFile(tb, filepath.Join("testdata", "listings", name))
	return strings.TrimPrefix(filepath.Ext(name), "."), page
}

func readFile(tb testing.TB, name string) string {
	tb.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		tb.Fatal(err)
	}
	return string(b)
}

// TestListings reads each listing, and each beginning of one, which is never taken for a whole: it is an error, or has
// all entries.
func TestListings(t *testing.T) {
	for name, want := range listings {
		kind, page := readListing(t, name)
		got, _, err := parseAs(t, "http://h/t/", kind, page)
		if !slices.Equal(got, want) || err != nil {
			t.Errorf("%s: %q, %v", name, got, err)
		}
		if kind == "html" {
			continue
		}
		for n := range page {
			got, _, err := parseAs(t, "http://h/t/", kind, page[:n])
			if err == nil && !slices.Equal(got, want) {
				t.Errorf("%s: its first %d bytes are %q without an error", name, n, got)
			}
		}
	}
	for _, name := range []string{"dufs.html", "dufs-old.html"} {
		kind, page := readListing(t, name)
		var elsewhere *listedElsewhereError
		if _, _, err := parseAs(t, "http://h/t/", kind, page); !errors.As(err, &elsewhere) ||
			elsewhere.query != "json" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// notListings are documents that are understood in part at the most.
var notListings = map[string]string{
	`{"error":"no"}`: "json", `[{"name":"a","type":"file"},{"name":"b"}]`: "json",
	`[{"name":"a","type":"socket"}]`: "json",
	`[1,2]`:                          "json", `"a"`: "json", `{"paths":{"a":1}}`: "json",
	`[{"name":"","type":"file"}]`:    "json",
	`[{"type":"file"}]`:              "json",
	`[{"name":"a","type":"file"}] x`: "json", `{"paths":[{"path_type":"Door","name":"a"}]}`: "json",
	`<html></html>`: "xml", `<list><file>a</file><door>b</door></list>`: "xml", `<list><file></file></list>`: "xml",
	`<ListBucketResult><Key>a</Key></ListBucketResult>`: "xml", `<list><file>a<file>b</file></file></list>`: "xml",
}

func TestNoListings(t *testing.T) {
	for page, kind := range notListings {
		if got, _, err := parseAs(t, "http://h/t/", kind, page); !errors.Is(err, errNoIndex) {
			t.Errorf("%s: %q, %v", page, got, err)
		}
	}
	long := strings.Repeat("x", 2*maxToken)
	for page, kind := range map[string]string{
		`[{"name":"` + long + `","type":"file"}]`: "json", `{"a":"` + long + `","paths":[]}`: "json",
		`<list><file>` + long + `</file></list>`:                                           "xml",
		`<list><file>` + strings.Repeat(long[:1<<10]+"<!-- -->", 2<<10) + `</file></list>`: "xml",
	} {
		if _, _, err := parseAs(t, "http://h/t/", kind, page); !errors.Is(err, errNoIndex) {
			t.Errorf("a long value in %s: %v", kind, err)
		}
	}
	mine := errors.New("mine")
	for kind, page := range map[string]string{
		"json": `[{"name":"a","type":"file"}]`,
		"xml":  "<list><file>a</file></list>",
	} {
		i := &index{
			base:  &url.URL{Scheme: "http", Host: "h", Path: "/"},
			entry: func(string, bool) error { return mine },
		}
		parse := map[string]func(io.Reader) error{"json": i.parseJSON, "xml": i.parseXML}[kind]
		if err := parse(strings.NewReader(page)); !errors.Is(err, mine) {
			t.Errorf("%s: the caller's error is %v", kind, err)
		}
	}
}

// hostileNumbers are what sizes and times may be told as.
var hostileNumbers = []string{
	"-1", "0", "-0", "4294967296", "1125899906842624", "1125899906842625", "4611686018427387904", "9223372036854775807",
	"9223372036854775808",
	"18446744073709551615", "18446744073709551616", "1e308", "1e400", "1.5", "0x7f", "+5", " 5", "NaN", `"1"`, "null",
	"[]",
}

// FuzzParseIndex reads pages, and checks that a link to each name that a file system can have leads back to it.
func FuzzParseIndex(f *testing.F) {
	for _, c := range indexPages {
		f.Add(c.page)
	}
	for _, page := range noIndexes {
		f.Add(page)
	}
	for _, link := range []string{
		"100%", "%zz", "5%2/", "%", "%25%", "\x01", "\x7f/", "/d%20e/%", "%00",
		"http://h/d%20e/a%",
	} {
		f.Add("<title>Index of /</title><a href='" + link + "'>")
	}
	for name := range listings {
		if kind, page := readListing(f, name); kind == "html" {
			f.Add(page)
		}
	}
	f.Fuzz(func(t *testing.T, page string) {
		base, err := url.Parse("http://h/d%20e/")
		if err != nil {
			t.Fatal(err)
		}
		i := &index{base: base, root: base, entry: func(name string, dir bool) error {
			if !validName(name) {
				if name == "" || name == "." || name == ".." {
					t.Errorf("the name %q", name)
				}
				return nil
			}
			path := name
			if dir {
				path += "/"
			}
			at := index{base: base, root: base}
			address := base.String() + escapePath(path)
			if back := at.parseLink(address); back.name != name || back.dir != dir {
				t.Errorf("%q comes back from %q as %+v", name, address, back)
			}
			return nil
		}}
		_ = i.parseHTML(strings.NewReader(page))
	})
}

// FuzzParseListing reads listings in JSON and XML, and checks that none that is cut is taken for a whole.
func FuzzParseListing(f *testing.F) {
	for name := range listings {
		if kind, page := readListing(f, name); kind != "html" {
			f.Add(page, kind == "xml")
		}
	}
	for page, kind := range notListings {
		f.Add(page, kind == "xml")
	}
	for _, n := range hostileNumbers {
		f.Add(`[{"name":"a","type":"file","size":`+n+`,"mtime":`+n+`}]`, false)
		f.Add(`[{"name":"a","is_dir":false,"url":"./a","size":`+n+`,"mode":`+n+`}]`, false)
		f.Add(`{"paths":[{"path_type":"File","name":"a","mtime":`+n+`,"size":`+n+`}]}`, false)
		f.Add(`<list><file mtime="`+n+`" size="`+n+`">a</file></list>`, true)
	}
	f.Fuzz(func(t *testing.T, page string, xml bool) {
		kind := "json"
		if xml {
			kind = "xml"
		}
		whole, _, err := parseAs(t, "http://h/t/", kind, page)
		if err != nil || len(page) == 0 {
			return
		}
		for _, name := range whole {
			if strings.TrimSuffix(name, "/") == "" && name != "/" {
				t.Errorf("the name %q", name)
			}
		}
		part, _, err := parseAs(t, "http://h/t/", kind, page[:len(page)/2])
		if err == nil && len(part) != len(whole) {
			t.Errorf("%q: half of it is %q, and no error", page, part)
		}
	})
}

func FuzzParseOptions(f *testing.F) {
	for _, seed := range []string{
		"", "a = b", "a=b\n#c\n\nd = e = f", "=", "a", "a=1\na=2", "\ufeffuser=x\r\n",
		"a=\x00", "pass = secret",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		values, err := parseOptions(strings.NewReader(s))
		if err != nil {
			return
		}
		for name, value := range values {
			if !optionName(name) || strings.TrimSpace(value) != value || strings.ContainsAny(value, "\n\x00") {
				t.Errorf("%q: %q = %q", s, name, value)
			}
		}
	})
}
