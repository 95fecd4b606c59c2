package ufs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"mime"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// head is what a response says about a file.
type head struct {
	validators
	// dir says that the path is a directory; then nothing else is known.
	dir bool
	// size is of the whole file, in bytes, -1 where it is not told.
	size int64
	// date is the server's clock, or ours where it tells none.
	date time.Time
	html bool
	// ranged says that the answer was a range, from first on.
	ranged bool
	first  int64
}

// stat asks for the head of a file by a GET of its first byte, for servers, URLs and users that forbid HEAD.
func (c *httpClient) stat(ctx context.Context, r request) (head, error) {
	h, err := c.byGet(ctx, r)
	if err == nil && !h.dir && h.size < 0 {
		return head{}, errNoSize(r)
	}
	return h, err
}

// byGet is what a GET of the first byte tells; the size may be missing.
func (c *httpClient) byGet(ctx context.Context, r request) (head, error) {
	h, err := c.statBy(ctx, http.MethodGet, r, http.Header{"Range": {"bytes=0-0"}})
	status, _ := statusOf(err)
	if status == http.StatusRequestedRangeNotSatisfiable || err == nil && h.ranged && h.size < 0 {
		// An empty file has no first byte, and some tell no size beside a range.
		h, err = c.statBy(ctx, http.MethodGet, r, nil)
	}
	return h, err
}

func errNoSize(r request) error {
	return fmt.Errorf("%s: the server does not tell the size of the file, and it is too large to be counted", r.show)
}

func statusOf(err error) (code int, ok bool) {
	var status *StatusError
	if !errors.As(err, &status) {
		return 0, false
	}
	return status.Code, true
}

// statBy makes one request and reads the head of its response. A status that is none of
// 200, 204, 206 and a redirect to a directory is a *StatusError.
func (c *httpClient) statBy(ctx context.Context, method string, r request, header http.Header) (head, error) {
	// The end of the context closes the connection instead of reading an answer that is longer than asked for.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	resp, err := c.send(ctx, c.forFiles(ctx), method, r, header)
	if err != nil {
		return head{}, err
	}
	defer discard(resp)
	switch {
	case isRedirect(resp):
		return head{dir: true}, nil
	case resp.StatusCode == http.StatusNoContent:
		// So some servers answer for an empty file.
		h := readHead(resp)
		h.size = 0
		return h, nil
	case resp.StatusCode == http.StatusOK || resp.StatusCode == http.StatusPartialContent && header.Get("Range") != "":
		return readHead(resp), c.checkEncoding(resp, r)
	}
	return head{}, newStatusError(resp, r.show)
}

func readHead(resp *http.Response) head {
	h := head{size: resp.ContentLength, validators: readValidators(resp.Header), date: time.Now()}
	if resp.StatusCode == http.StatusPartialContent {
		h.size = -1
		if r, ok := parseContentRange(resp.Header.Get("Content-Range")); ok {
			h.size, h.ranged, h.first = r.total, r.first >= 0, r.first
		}
	}
	if strongETag(h.etag) && timeless(h.etag, h.size, h.modTime) {
		h.etag = "W/" + h.etag
	}
	if t, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		// What a cache keeps has the time of its origin, and its age.
		age, _ := strconv.ParseUint(strings.TrimSpace(resp.Header.Get("Age")), 10, 31)
		h.date = t.Add(time.Duration(age) * time.Second)
	}
	kind := mediaType(resp)
	h.html = kind == "text/html" || kind == "application/xhtml+xml"
	if h.etag != "" && !h.modTime.IsZero() && !sameHost(firstURL(resp), resp.Request.URL) {
		// Each mirror has ETags of its own, so one says nothing when the next request may go to another mirror. The
		// time is the file's.
		h.etag = ""
	}
	return h
}

// mediaType is the type of a response without its parameters.
func mediaType(resp *http.Response) string {
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	return kind
}

// compressed are the names of files that servers call encoded as they are, such as Apache httpd by AddEncoding.
var compressed = regexp.MustCompile(`(?i)\.(gz|tgz|svgz|z|taz|bz2|tbz2?|xz|txz|zst|tzst|br)$`)

// checkEncoding refuses a file that the server compresses on the way, although it was asked not to: the bytes and their
// number would be those of another file.
func (c *httpClient) checkEncoding(resp *http.Response, r request) error {
	if c.stored && !encoded(resp) && resp.Header.Get("X-Goog-Stored-Content-Encoding") == "gzip" {
		return fmt.Errorf("%s is stored compressed and sent decompressed, so that its size is not told", r.show)
	}
	if c.stored || !encoded(resp) || compressed.MatchString(r.url.Path) {
		return nil
	}
	return &encodedError{resp.Header.Get("Content-Encoding"), r.show}
}

// errEncoded is what each encodedError is.
var errEncoded = errors.New("the file is compressed on the way")

// encodedError says that a server compresses a file on the way.
type encodedError struct{ coding, show string }

func (e *encodedError) Error() string {
	return e.show + " is sent with the Content-Encoding " + e.coding +
		" although identity was asked for; the server must be told not to compress it"
}

func (e *encodedError) Unwrap() error { return errEncoded }

func encoded(resp *http.Response) bool {
	coding := strings.ToLower(resp.Header.Get("Content-Encoding"))
	return coding != "" && coding != "identity"
}

// firstURL is what was asked for before redirects.
func firstURL(resp *http.Response) *url.URL {
	req := resp.Request
	for req.Response != nil && req.Response.Request != nil {
		req = req.Response.Request
	}
	return req.URL
}

// discard ends a response whose body does not matter: a short one is read, so that the
// connection serves again, a long or a slow one is not.
func discard(resp *http.Response) {
	if resp.ContentLength > 0 && resp.ContentLength <= 16<<10 {
		slow := time.AfterFunc(time.Second, func() { _ = resp.Body.Close() })
		defer slow.Stop()
		_, _ = io.CopyN(io.Discard, resp.Body, resp.ContentLength+1)
	}
	_ = resp.Body.Close()
}

// contentRange is the header Content-Range (RFC 9110, section 14.4): the bytes first to last of
// total, which is -1 where it is not told. An unsatisfied range has first and last -1.
type contentRange struct{ first, last, total int64 }

func parseContentRange(s string) (contentRange, bool) {
	unit, rest, _ := strings.Cut(strings.TrimSpace(s), " ")
	span, size, found := strings.Cut(strings.TrimSpace(rest), "/")
	if !strings.EqualFold(unit, "bytes") || !found {
		return contentRange{}, false
	}
	r := contentRange{first: -1, last: -1, total: -1}
	if size != "*" {
		total, err := strconv.ParseUint(size, 10, 63)
		if err != nil && !errors.Is(err, strconv.ErrRange) {
			return contentRange{}, false
		}
		// What no number holds is larger than any file.
		r.total = int64(min(total, math.MaxInt64))
	}
	if span == "*" {
		return r, r.total >= 0
	}
	from, to, _ := strings.Cut(span, "-")
	first, err1 := strconv.ParseUint(from, 10, 63)
	last, err2 := strconv.ParseUint(to, 10, 63)
	if err1 != nil || err2 != nil || last < first || r.total >= 0 && int64(last) >= r.total {
		return contentRange{}, false
	}
	r.first, r.last = int64(first), int64(last)
	return r, true
}
