package liar

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"
)

// kinds of answers that a lie is about.
const (
	aboutHead = 1 << iota // the answer to HEAD
	aboutBody             // of a file by GET
	aboutPage             // of a directory

	aboutAll = aboutHead | aboutBody | aboutPage
)

// lie is one oddity of one answer, told for the moment. It must not agree with itself in all that a client can see.
type lie struct {
	name, theme string
	about       int
	tell        func(l *told)
}

// told is what a lie is told about.
type told struct {
	*answer
	dice *rand.Rand
	// timeout is the client's patience.
	timeout time.Duration
	// file is what was asked for, nil for a page; version is its present one.
	file    *File
	version Version
	world   *World
}

// instead replaces the answer by a status without a body.
func (t *told) instead(status int) {
	t.status, t.text, t.content, t.from, t.to = status, []byte("no\n"), "", 0, 0
	t.length = "3"
	t.header = map[string]string{"Content-Type": "text/plain"}
}

// half is a place within the body.
func (t *told) half() int64 { return t.dice.Int64N(max(t.size(), 1)) }

// lies are all that a web server or a bucket tells for the moment.
var lies = []lie{
	{"404 for a moment", "moments", aboutAll, func(t *told) { t.instead(http.StatusNotFound) }},
	{"500", "moments", aboutAll, func(t *told) { t.instead(http.StatusInternalServerError) }},
	{"502", "moments", aboutAll, func(t *told) { t.instead(http.StatusBadGateway) }},
	{"503 and Retry-After", "moments", aboutAll, func(t *told) { t.busy(http.StatusServiceUnavailable) }},
	{"429 and Retry-After", "moments", aboutAll, func(t *told) { t.busy(http.StatusTooManyRequests) }},
	{"closed without an answer", "moments", aboutAll, func(t *told) { t.drop = true }},
	{"the head comes late", "moments", aboutAll, func(t *told) { t.wait = t.timeout / 2 }},
	{"the head comes too late", "moments", aboutAll, func(t *told) { t.wait = t.timeout * 3 / 2 }},

	{"HEAD says 0", "heads", aboutHead, func(t *told) { t.length = "0" }},
	{"HEAD says half", "heads", aboutHead, func(t *told) { t.length = strconv.FormatInt(t.version.Size/2, 10) }},
	{"HEAD says 2^62", "heads", aboutHead, func(t *told) { t.length = "4611686018427387904" }},
	{"HEAD says less than nothing", "heads", aboutHead, func(t *told) { t.length = "-1" }},
	{"HEAD tells no length", "heads", aboutHead, func(t *told) { t.length = "" }},
	{"HEAD is not allowed", "heads", aboutHead, func(t *told) { t.instead(http.StatusMethodNotAllowed) }},
	{"HEAD is forbidden", "heads", aboutHead, func(t *told) { t.instead(http.StatusForbidden) }},

	{"the range is ignored", "ranges", aboutBody, func(t *told) { t.whole() }},
	{"the range is ignored, in chunks", "ranges", aboutBody, func(t *told) { t.whole(); t.length = "" }},
	{"another range", "ranges", aboutBody, func(t *told) { t.shift() }},
	{"a total of 2^63-1", "ranges", aboutBody, func(t *told) { t.total("9223372036854775807") }},
	{"a total below the end", "ranges", aboutBody, func(t *told) { t.total("1") }},
	{"a total that is no number", "ranges", aboutBody, func(t *told) { t.total("-5") }},
	{"416 for a moment", "ranges", aboutBody, func(t *told) { t.instead(http.StatusRequestedRangeNotSatisfiable) }},
	{"412 for a moment", "ranges", aboutBody, func(t *told) { t.instead(http.StatusPreconditionFailed) }},
	{
		"several parts", "ranges", aboutBody,
		func(t *told) { t.header["Content-Type"] = "multipart/byteranges; boundary=x" },
	},
	{"a range of 2^63 bytes is announced", "ranges", aboutBody, func(t *told) { t.length = "9223372036854775808" }},
	{"a length of 2^62 is announced", "ranges", aboutBody, func(t *told) { t.length = "4611686018427387904" }},
	{"a range without Content-Range", "ranges", aboutBody, func(t *told) { delete(t.header, "Content-Range") }},

	{"the body is cut", "bodies", aboutBody, func(t *told) { t.cut = t.half() }},
	{"the body is cut in a chunk", "bodies", aboutBody, func(t *told) { t.length = ""; t.cut = t.half() }},
	{"fewer chunks", "bodies", aboutBody, func(t *told) {
		t.length = ""
		t.to -= min(t.to-t.from,
			1+t.dice.Int64N(5000))
	}},
	{"the body is longer", "bodies", aboutBody, func(t *told) { t.length = ""; t.to += 1 + t.dice.Int64N(5000) }},
	{"the body is slow", "bodies", aboutBody, func(t *told) { t.every = t.timeout / 50 }},
	{"the body pauses", "bodies", aboutBody, func(t *told) { t.pause, t.pauseAt = t.timeout/2, t.half() }},
	{
		"the body pauses for too long", "bodies", aboutBody,
		func(t *told) { t.pause, t.pauseAt = t.timeout*3/2, t.half() },
	},

	{
		"another strong ETag", "tags", aboutBody | aboutHead,
		func(t *told) { t.header["Etag"] = fmt.Sprintf(`"another-%d"`, t.version.Number) },
	},
	{"no ETag", "tags", aboutBody | aboutHead, func(t *told) { delete(t.header, "Etag") }},
	{
		"another time", "tags", aboutBody | aboutHead,
		func(t *told) { t.header["Last-Modified"] = httpTime(t.version.ModTime.Add(-17 * time.Minute)) },
	},
	{"the year 9999", "tags", aboutBody | aboutHead, func(t *told) {
		t.header["Last-Modified"] = fmt.Sprintf("Fri, 31 Dec 9999 23:%02d:59 GMT", t.version.Number%60)
	}},
	{"no time at all", "tags", aboutBody | aboutHead, func(t *told) { t.timeless() }},
	{
		"an ETag of 200 KB", "tags", aboutBody | aboutHead,
		func(t *told) { t.header["Etag"] = fmt.Sprintf(`"%0200000d"`, t.version.Number) },
	},

	{"overwritten while it is sent", "changes", aboutBody, func(t *told) { t.overwrite() }},

	{"grown a moment before", "bare", aboutBody, func(t *told) { t.grow() }},

	{"the page is cut", "pages", aboutPage, func(t *told) { t.cut = t.half() }},
	{"the page is cut in a chunk", "pages", aboutPage, func(t *told) { t.length = ""; t.cut = t.half() }},
	{"the page is slow", "pages", aboutPage, func(t *told) { t.pause, t.pauseAt = t.timeout/2, t.half() }},
	{"a page to log in", "pages", aboutPage, func(t *told) { t.login() }},
	{"404 for a page", "pages", aboutPage, func(t *told) { t.instead(http.StatusNotFound) }},
	{"503 for a page", "pages", aboutPage, func(t *told) { t.busy(http.StatusServiceUnavailable) }},
	{"403 for a page", "pages", aboutPage, func(t *told) { t.instead(http.StatusForbidden) }},
}

// busy asks to come again later, in one of the ways that there are.
func (t *told) busy(status int) {
	t.instead(status)
	t.header["Retry-After"] = pick(t.dice, "0", "1", "99999999999", "-1", "soon", httpTime(time.Now().Add(time.Second)),
		httpTime(time.Now().Add(-240*time.Hour)), httpTime(time.Now().Add(240*time.Hour)))
}

// whole sends the file from its beginning.
func (t *told) whole() {
	t.status, t.from, t.to = http.StatusOK, 0, t.version.Size
	t.length = strconv.FormatInt(t.version.Size, 10)
	delete(t.header, "Content-Range")
}

// shift sends a range beside the one that was asked for, and says so.
func (t *told) shift() {
	by := min(t.from, 1+t.dice.Int64N(4096))
	if by == 0 {
		t.to -= min((t.to-t.from)/2, 4096)
	}
	t.from, t.to = t.from-by, t.to-by
	t.status = http.StatusPartialContent
	t.header["Content-Range"] = fmt.Sprintf("bytes %d-%d/%d", t.from, t.to-1, t.version.Size)
	t.length = strconv.FormatInt(t.to-t.from, 10)
}

// total tells another size of the whole file.
func (t *told) total(of string) {
	t.status = http.StatusPartialContent
	t.header["Content-Range"] = fmt.Sprintf("bytes %d-%d/%s", t.from, t.to-1, of)
}

// overwrite changes the file while it is sent, where something shows it afterwards.
func (t *told) overwrite() {
	f := t.file
	if f.Fixed || f.Pages || f.Sign != Weak && f.Sign != Clock || t.to-t.from < 2 {
		t.lie = ""
		return
	}
	t.swap = func() string { return t.world.Change(f, t.version.Size).Content }
}

// grow has a file without validators grow after its size was asked for: the body is all of the next version.
func (t *told) grow() {
	if t.file.Fixed || !t.file.Bare {
		t.lie = ""
		return
	}
	v := t.world.Change(t.file, t.version.Size+1+t.dice.Int64N(5000))
	t.content, t.from, t.to = v.Content, 0, v.Size
}

// timeless tells a time that is none, where something else tells versions apart.
func (t *told) timeless() {
	if t.file.Sign == Clock {
		t.lie = ""
		return
	}
	t.header["Last-Modified"] = "Thu, 99 Foo 0000 77:00:00 GMT"
}

// login is what a portal answers in place of anything.
func (t *told) login() {
	text := `<!doctype html><html><head><title>Welcome</title></head><body><form action="/login"><input name="user"></form><a href="/help.html">Help</a></body></html>`
	t.status, t.text, t.length = http.StatusOK, []byte(text), strconv.Itoa(len(text))
	t.header = map[string]string{"Content-Type": "text/html"}
}

func httpTime(t time.Time) string { return t.UTC().Format(http.TimeFormat) }
