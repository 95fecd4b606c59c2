package serve

import (
	"fmt"
	"html"
	"io/fs"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
)

// serveDir answers if the path is a directory, and reports whether it was. The page is what
// http.FileServer writes; that itself cannot be used, since it shows an index.html in place of
// the directory that holds it.
func (s *Server) serveDir(w http.ResponseWriter, r *http.Request) bool {
	name := path.Clean(strings.TrimPrefix(r.URL.Path, "/"))
	if name == "/" {
		name = "."
	}
	f, err := s.root.Open(name)
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }()
	st, err := f.Stat()
	if err != nil || !st.IsDir() {
		return false
	}
	if !strings.HasSuffix(r.URL.Path, "/") {
		to := url.URL{Path: path.Base(r.URL.Path) + "/"}
		w.Header().Set("Location", to.String())
		w.WriteHeader(http.StatusMovedPermanently)
		return true
	}
	entries, err := f.ReadDir(-1)
	if err != nil {
		http.Error(w, "Error reading directory", http.StatusInternalServerError)
		return true
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Last-Modified", st.ModTime().UTC().Format(http.TimeFormat))
	writeListing(w, entries)
	return true
}

// writeListing writes the page of a directory, in the order of names.
func writeListing(w http.ResponseWriter, entries []fs.DirEntry) {
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	fmt.Fprint(w, "<!doctype html>\n<meta name=\"viewport\" content=\"width=device-width\">\n<pre>\n")
	for _, e := range entries {
		name := e.Name()
		if e.IsDir() {
			name += "/"
		}
		// A URL of its own, so that '?' and '#' belong to the path and "a:b" is no scheme.
		link := url.URL{Path: name}
		fmt.Fprintf(w, "<a href=\"%s\">%s</a>\n", html.EscapeString(link.String()), html.EscapeString(name))
	}
	fmt.Fprint(w, "</pre>\n")
}
