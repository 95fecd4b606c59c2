package liar

import (
	"context"
	"fmt"
	"html"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// lying is how often an answer about what is not honest is a lie.
const lying = 0.25

// server is what web servers and buckets share: files, and lies about them.
type server struct {
	plan     Plan
	world    *World
	lies     []lie
	ordinals Ordinals
	http     *http.Server
	url      string
	requests atomic.Int64
	// script, where it is set, names the lie for an answer in place of the dice; "" is none.
	script atomic.Pointer[func(what int, path string) string]
}

// listen serves on a port of the loopback until Close.
func (s *server) listen(h http.Handler) error {
	for _, l := range lies {
		if s.plan.Has(l.theme) {
			s.lies = append(s.lies, l)
		}
	}
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s.url = "http://" + l.Addr().String()
	s.http = &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
	// Serve ends with Close.
	go func() { _ = s.http.Serve(l) }()
	return nil
}

// Close ends the server and all its connections.
func (s *server) Close() error { return s.http.Close() }

// Show does nothing: what a server shows is the world itself.
func (s *server) Show(*File, Version) error { return nil }

// ShowTurn does nothing.
func (s *server) ShowTurn(*File, bool) error { return nil }

// lieAbout tells one of the lies of these kinds, or none.
func (s *server) lieAbout(a *answer, what int, path string, f *File, v Version, honest bool) {
	if script := s.script.Load(); script != nil {
		s.recite(a, (*script)(what, path), path, f, v)
		return
	}
	if honest || !s.world.Lies() {
		return
	}
	dice := s.world.Seed.Dice("lie", what, path, s.ordinals.Next(fmt.Sprint(what, path)))
	if !chance(dice, lying) {
		return
	}
	var fit []lie
	for _, l := range s.lies {
		// Of a directory that is asked for as a file nothing is known that more could be told of.
		if l.about&what != 0 && (f != nil || what == aboutPage || l.theme == "moments") {
			fit = append(fit, l)
		}
	}
	if len(fit) == 0 {
		return
	}
	s.say(pick(dice, fit...), a, dice, path, f, v)
}

// recite tells the lie of that name.
func (s *server) recite(a *answer, name, path string, f *File, v Version) {
	for _, l := range lies {
		if l.name == name {
			s.say(l, a, s.world.Seed.Dice("script", path), path, f, v)
		}
	}
}

// say tells a lie.
func (s *server) say(l lie, a *answer, dice *rand.Rand, path string, f *File, v Version) {
	a.lie = l.name
	l.tell(&told{answer: a, dice: dice, timeout: s.plan.Timeout, file: f, version: v, world: s.world})
	if a.lie != "" {
		s.world.Tell(path, l.name)
	}
}

// object answers for a file.
func (s *server) object(r *http.Request, f *File, v Version) *answer {
	head := r.Method == http.MethodHead
	v = s.aging(f, v, head)
	a := plain(http.StatusOK)
	tag := s.tag(f, v)
	a.header["Content-Type"] = "application/octet-stream"
	a.header["Accept-Ranges"] = "bytes"
	if tag != "" {
		a.header["Etag"] = tag
	}
	if !v.ModTime.IsZero() {
		a.header["Last-Modified"] = httpTime(v.ModTime)
	}
	size := strconv.FormatInt(v.Size, 10)
	if f.Claims != "" {
		// Only a raw answer has such a length.
		size, a.lie = f.Claims, "a size of "+f.Claims
	}
	a.content, a.to, a.length = v.Content, v.Size, size
	if want := r.Header.Get("If-Match"); want != "" && (tag != want || strings.HasPrefix(tag, "W/")) {
		return plain(http.StatusPreconditionFailed)
	}
	from, to, ranged := askedRange(r.Header.Get("Range"), v.Size)
	switch {
	case head:
		a.bare = true
		lieOfHead(a, f, v)
	case f.Bare:
		a.length = ""
	case ranged && from >= v.Size:
		a = plain(http.StatusRequestedRangeNotSatisfiable)
		a.header["Content-Range"] = "bytes */" + size
		return a
	case ranged:
		a.status, a.from, a.to = http.StatusPartialContent, from, to
		a.length = strconv.FormatInt(to-from, 10)
		a.header["Content-Range"] = fmt.Sprintf("bytes %d-%d/%s", from, to-1, size)
	}
	what := aboutBody
	if head {
		what = aboutHead
	}
	s.lieAbout(a, what, f.Path, f, v, f.Honest)
	return a
}

// aging has a file change now and then between the question what it is and the request for its bytes.
func (s *server) aging(f *File, v Version, head bool) Version {
	if head || f.Fixed || s.script.Load() != nil || !s.world.Lies() {
		return v
	}
	if dice := s.world.Seed.Dice("aging", f.Path, s.ordinals.Next("aging "+f.Path)); chance(dice, 0.1) {
		return s.world.Change(f, f.next(dice, v.Size))
	}
	return v
}

// tag is the ETag of the backend whose turn it is.
func (s *server) tag(f *File, v Version) string {
	if f.Tags < 2 || v.ETag == "" {
		return v.ETag
	}
	return strings.TrimSuffix(v.ETag, `"`) + fmt.Sprintf(`-%d"`, s.ordinals.Next("tag "+f.Path)%f.Tags)
}

// lieOfHead has HEAD tell what it tells for good.
func lieOfHead(a *answer, f *File, v Version) {
	switch f.Head {
	case "":
		return
	case "zero":
		a.length = "0"
	case "half":
		a.length = strconv.FormatInt(v.Size/2, 10)
	case "double":
		a.length = strconv.FormatInt(v.Size*2, 10)
	case "none":
		a.length = ""
	case "405":
		a.status, a.length = http.StatusMethodNotAllowed, "0"
	case "501":
		a.status, a.length = http.StatusNotImplemented, "0"
	}
	a.lie = "HEAD: " + f.Head
}

// askedRange takes one range of bytes; what it cannot take is no range.
func askedRange(header string, size int64) (from, to int64, ok bool) {
	first, last, found := strings.Cut(strings.TrimPrefix(header, "bytes="), "-")
	if header == "" || !found {
		return 0, 0, false
	}
	from, err := strconv.ParseInt(first, 10, 64)
	if err != nil || from < 0 {
		return 0, 0, false
	}
	to, err = strconv.ParseInt(last, 10, 64)
	if err != nil || to >= size {
		to = size - 1
	}
	return from, to + 1, to >= from || from >= size
}

// web is a web server with index pages.
type web struct {
	server
}

// newWeb serves the world as index pages and files.
func newWeb(p Plan, w *World) (Source, error) {
	s := &web{server{plan: p, world: w}}
	return s, s.listen(http.HandlerFunc(s.serve))
}

// Mount is the root's URL.
func (s *web) Mount() (source string, flags []string) { return s.url + "/", nil }

func (s *web) serve(w http.ResponseWriter, r *http.Request) {
	s.requests.Add(1)
	s.answer(r).send(w)
}

// answer decides what a request is answered.
func (s *web) answer(r *http.Request) *answer {
	path := strings.TrimPrefix(r.URL.Path, "/")
	path, moved := strings.CutPrefix(path, "_moved/")
	slash := strings.HasSuffix(path, "/") || path == ""
	path = strings.TrimSuffix(path, "/")
	path = s.unloop(path)
	if f, v, ok := s.world.Look(path); ok && !slash {
		if f.Link != "" && !moved {
			return redirect(f)
		}
		return s.object(r, f, v)
	}
	d, ok := s.world.Dir(path)
	if !ok {
		return textual(http.StatusNotFound, "text/plain", "not found\n")
	}
	if !slash {
		return s.slashless(r, d)
	}
	a := textual(http.StatusOK, "text/html; charset=utf-8", s.page(d))
	a.bare = r.Method == http.MethodHead
	s.lieAbout(a, aboutPage, d.Path, nil, Version{}, d.Honest)
	return a
}

// unloop takes the turns of directories that hold themselves out of a path.
func (s *web) unloop(path string) string {
	for {
		i := strings.Index(path+"/", "/"+loopName+"/")
		if i < 0 {
			return path
		}
		if d, ok := s.world.Dir(path[:i]); !ok || !d.Loop {
			return path
		}
		path = strings.TrimSuffix(path[:i]+"/"+path[min(i+len(loopName)+2, len(path)):], "/")
	}
}

// redirect answers for a file that is elsewhere.
func redirect(f *File) *answer {
	escaped := (&url.URL{Path: "/" + f.Path}).EscapedPath()
	to := map[string]string{
		"moved": "/_moved" + escaped, "loop": escaped, "away": "http://127.0.0.1:1" + escaped,
		"odd": "ftp://host/x",
	}[f.Link]
	a := textual(http.StatusFound, "text/html", "elsewhere\n")
	a.header["Location"] = to
	return a
}

// slashless answers for a directory that is asked for as if it were a file.
func (s *web) slashless(r *http.Request, d *Dir) *answer {
	switch d.Slash {
	case "404":
		return textual(http.StatusNotFound, "text/plain", "not found\n")
	case "index":
		a := textual(http.StatusOK, "text/html; charset=utf-8", s.page(d))
		a.bare = r.Method == http.MethodHead
		return a
	}
	a := textual(http.StatusMovedPermanently, "text/html", "moved\n")
	a.header["Location"] = r.URL.EscapedPath() + "/"
	a.bare = r.Method == http.MethodHead
	s.lieAbout(a, aboutHead, d.Path, nil, Version{}, d.Honest)
	return a
}

// page is the index page of a directory.
func (s *web) page(d *Dir) string {
	entries, _ := s.world.List(d.Path)
	var b strings.Builder
	b.WriteString("<!doctype html><html><head><title>Index of /" + html.EscapeString(d.Path) +
		"</title></head><body><pre><a href=\"../\">../</a>\n")
	line := func(e Entry) {
		slash := ""
		if sub, ok := s.world.Dir(join(d.Path, e.Name)); e.Dir && (!ok || sub.Slash != "none") {
			slash = "/"
		}
		fmt.Fprintf(&b, "<a href=\"%s%s\">%s</a>\n", html.EscapeString(escapeName(e.Name)), slash,
			html.EscapeString(e.Name))
	}
	if d.Twice {
		for _, e := range entries[:len(entries)/3] {
			line(e)
		}
	}
	for _, e := range entries {
		line(e)
	}
	if d.Loop {
		line(Entry{Name: loopName, Dir: true})
	}
	for _, link := range d.Extra {
		fmt.Fprintf(&b, "<a href=\"%s\">odd</a>\n", html.EscapeString(link))
	}
	b.WriteString("</pre></body></html>\n")
	return b.String()
}

// escapeName writes each byte that is no letter, digit, dot, dash or underscore as %XX, so that any name is a link.
func escapeName(name string) string {
	var b strings.Builder
	for i := range len(name) {
		c := name[i]
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte(".-_", c) >= 0 {
			b.WriteByte(c)
			continue
		}
		fmt.Fprintf(&b, "%%%02X", c)
	}
	return b.String()
}
