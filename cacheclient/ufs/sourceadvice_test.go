package ufs

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestFileInsteadOfDirectory mounts what is a file, on servers of each kind: the error names the URL, says that it is a
// file, and names the directory.
func TestFileInsteadOfDirectory(t *testing.T) {
	servers := map[string]http.HandlerFunc{
		"not there with a slash": func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "/") {
				http.NotFound(w, r)
				return
			}
			w.Header().Set("Content-Type", "application/gzip")
		},
		"redirects to the address without a slash": func(w http.ResponseWriter, r *http.Request) {
			if plain, slash := strings.CutSuffix(r.URL.Path, "/"); slash {
				http.Redirect(w, r, plain, http.StatusMovedPermanently)
				return
			}
			w.Header().Set("Content-Type", "application/gzip")
		},
		"the same with and without a slash": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/gzip")
		},
	}
	for name, serve := range servers {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(serve)
			defer server.Close()
			for _, url := range []string{server.URL + "/a%20dir/model.tar.gz", server.URL + "/a%20dir/model.tar.gz/"} {
				_, err := Open(testContext(t), url, Options{})
				if err == nil {
					t.Fatal("a file was opened as a directory")
				}
				begins := `source "` + url + `": it is `
				ends := "; give the directory that it is in, " + server.URL + "/a%20dir/"
				one, two := "a file and not a directory", `of the type "application/gzip" and no directory index`
				if got := err.Error(); got != begins+one+ends && got != begins+two+ends {
					t.Errorf("got %s", got)
				}
			}
		})
	}
	gone := httptest.NewServer(http.HandlerFunc(http.NotFound))
	defer gone.Close()
	for _, path := range []string{"/", "/x", "/x/"} {
		_, err := Open(testContext(t), gone.URL+path, Options{})
		if err == nil || !strings.HasSuffix(err.Error(), " answers 404 Not Found") {
			t.Errorf("what is not there at all, %s: %v", path, err)
		}
	}
}

// TestIndexWithoutItsSlash mounts a directory with a slash whose index the server has without: it is shown, where the
// page calls itself an index. A page of a site for people is none.
func TestIndexWithoutItsSlash(t *testing.T) {
	for title, shown := range map[string]bool{"Index of /data": true, "Welcome": false} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/data" {
				http.NotFound(w, r)
				return
			}
			w.Header().Set("Content-Type", "text/html")
			fmt.Fprintf(w, `<html><head><title>%s</title></head><body><a href="data/a.txt">a.txt</a></body></html>`, title)
		}))
		defer server.Close()
		_, err := Open(testContext(t), server.URL+"/data/", Options{})
		if (err == nil) != shown {
			t.Errorf("%q: %v", title, err)
		}
	}
}

func TestHolder(t *testing.T) {
	for in, want := range map[string]string{
		"http://h/":           "",
		"http://h/f":          "http://h/",
		"https://h/a%2Fb/c/f": "https://h/a%2Fb/c/",
		"s3://bucket":         "",
		"s3://bucket/f":       "s3://bucket",
		"s3://bucket/a/b/f":   "s3://bucket/a/b/",
		"/a/f":                "/a",
		"file:///a/f":         "/a",
	} {
		src, err := parseSource(in)
		if err != nil || src.holder() != want {
			t.Errorf("%s: %q, %v, want %q", in, src.holder(), err, want)
		}
	}
}

// TestBucketNames refuses what is no name before a server is asked, and takes all names that some server has.
func TestBucketNames(t *testing.T) {
	for _, name := range []string{
		"my-bucket", "a.b.c", "UPPER_case", "123", strings.Repeat("b", 255),
		"arn:aws:s3:eu-west-1:123456789012:accesspoint:data", "alias-abc-s3alias", "name--use1-az4--x-s3",
		"b", "tenant:bucket",
	} {
		if err := checkBucket(name); err != nil {
			t.Error(err)
		}
	}
	asked := 0
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked++ }))
	defer server.Close()
	for _, name := range []string{"my bucket", "-x", "x-", "a..b", "a%62c", "ünï", "$(id)", strings.Repeat("b", 256)} {
		values := map[string]string{"endpoint": server.URL, "provider": "Other"}
		_, err := Open(testContext(t), "s3://"+name+"/p", Options{Values: values})
		if err == nil || !strings.Contains(err.Error(), "is not a bucket's name: accepted are ") {
			t.Errorf("%q: %v", name, err)
		}
	}
	if asked > 0 {
		t.Errorf("the server was asked %d times", asked)
	}
}
