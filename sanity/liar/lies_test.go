package liar

import (
	"bytes"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestEachLieIsTold asks a server that tells one lie until it has told it, and proves that the bytes which come are of
// the file all the same, or that something shows that they are not.
func TestEachLieIsTold(t *testing.T) {
	for _, l := range lies {
		if l.about&(aboutHead|aboutBody) == 0 {
			continue
		}
		t.Run(l.name, func(t *testing.T) {
			t.Parallel()
			p := Plan{Kind: HTTP, Seed: 3, Timeout: 20 * time.Millisecond, Themes: []string{l.theme}}
			w := NewWorld(3)
			w.AddDir(&Dir{Path: "d"})
			f := w.AddFile(&File{
				Path: "d/f", Sign: pickSign(l), Fixed: l.theme != "changes" && l.theme != "bare",
				Bare: l.theme == "bare",
			}, 300_000)
			s := &web{server{plan: p, world: w}}
			if err := s.listen(http.HandlerFunc(s.serve)); err != nil {
				t.Fatal(err)
			}
			defer func() { _ = s.Close() }()
			s.lies = []lie{l}
			method := http.MethodGet
			if l.about&aboutBody == 0 {
				method = http.MethodHead
			}
			for range 100 {
				if len(w.Told("d/f")) > 0 {
					return
				}
				askOnce(t, s, w, f, method)
			}
			t.Error("never told")
		})
	}
}

// pickSign is a sign with which the lie is told.
func pickSign(l lie) Sign {
	if l.theme == "changes" {
		return Weak
	}
	return Strong
}

// askOnce asks for a range and compares what came.
func askOnce(t *testing.T, s *web, w *World, f *File, method string) {
	t.Helper()
	req, _ := http.NewRequestWithContext(t.Context(), method, s.url+"/d/f", http.NoBody)
	req.Header.Set("Range", "bytes=1000-150999")
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		return // A lie about the head.
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode >= 300 || method == http.MethodHead {
		return
	}
	from := int64(0)
	if resp.StatusCode == http.StatusPartialContent {
		first, _, _ := strings.Cut(strings.TrimPrefix(resp.Header.Get("Content-Range"), "bytes "), "-")
		if from, err = strconv.ParseInt(first, 10, 64); err != nil {
			return // No Content-Range, which shows.
		}
	}
	if versions := w.Versions(f); len(versions) > 1 {
		return // Whether a body is of one or two of them is what clients have to find out.
	}
	if v := w.Versions(f)[0]; !bytes.Equal(body, bytesOf(v, from, int64(len(body)))) {
		t.Errorf("%d bytes from %d are not the file's", len(body), from)
	}
}

// TestPagesLead to each entry and nothing else that a file system can have.
func TestPagesLead(t *testing.T) {
	for _, theme := range []string{"names", "slashes", "pages"} {
		w := Grow(Plan{Kind: HTTP, Seed: 5, Themes: []string{theme}})
		s := &web{server{plan: Plan{Kind: HTTP}, world: w}}
		if err := s.listen(http.HandlerFunc(s.serve)); err != nil {
			t.Fatal(err)
		}
		for _, f := range w.Files() {
			if f.Guest {
				continue
			}
			_, v, _ := w.Look(f.Path)
			var escaped []string
			for name := range strings.SplitSeq(f.Path, "/") {
				escaped = append(escaped, escapeName(name))
			}
			req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url+"/"+strings.Join(escaped, "/"),
				http.NoBody)
			resp, err := http.DefaultTransport.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			if f.Claims == "" && !bytes.Equal(body, bytesOf(v, 0, v.Size)) {
				t.Errorf("%q: status %d and other bytes", f.Path, resp.StatusCode)
			}
		}
		_ = s.Close()
	}
}
