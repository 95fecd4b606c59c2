package ufs

import (
	"errors"
	"net/http"
	"net/url"
	"testing"
	"time"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/border"
)

// FuzzAnswer reads the head of an answer as what it says of a file, of a range and of an error. What is taken for
// bytes of the version lies within it, what is kept is bounded, and a version does not differ from itself.
func FuzzAnswer(f *testing.F) {
	f.Add(206, int64(10), "bytes 0-9/100", `"e"`, "Mon, 02 Jan 2006 15:04:05 GMT", "5", int64(100), int64(0), int64(10))
	f.Add(200, int64(100), "", `W/"e"`, "", "", int64(100), int64(0), int64(100))
	f.Add(416, int64(0), "bytes */100", "", "Fri, 31 Dec 9999 23:59:59 GMT", "Fri, 31 Dec 9999 23:59:59 GMT",
		int64(100), int64(0), int64(1))
	f.Add(404, int64(10), "", "", "", "1", int64(100), int64(0), int64(10))
	f.Add(187, int64(10), "", "", "", "1", int64(100), int64(0), int64(10))
	for _, n := range hostileNumbers {
		f.Add(206, int64(1), "bytes "+n+"-"+n+"/"+n, n, n, n, int64(1)<<50, int64(1)<<49, int64(1))
		f.Add(503, int64(-1), "bytes 0-0/"+n, `"`+n+`"`, "Thu, 01 Jan "+n+" 00:00:00 GMT", n+".5", int64(0), int64(0),
			int64(0))
	}
	f.Fuzz(func(t *testing.T, status int, announced int64, span, etag, modified, after string, size, off,
		length int64,
	) {
		if border.Size(size) != nil || off < 0 || length < 1 || off > size-length {
			return // No reader asks so.
		}
		at := &url.URL{Scheme: "http", Host: "h", Path: "/f"}
		resp := &http.Response{
			StatusCode: status, ContentLength: announced, Body: http.NoBody, Request: &http.Request{URL: at},
			Header: http.Header{
				"Content-Range": {span}, "Etag": {etag}, "Last-Modified": {modified}, "Date": {modified},
				"Retry-After": {after},
			},
		}
		h := readHead(resp)
		if len(h.etag) > border.MostVersionBytes || len(h.version(trustAll)) > border.MostVersionBytes {
			t.Errorf("a version of %d bytes, an ETag of %d", len(h.version(trustAll)), len(h.etag))
		}
		was := cacheclient.Info{Path: "f", Size: size, ModTime: h.modTime, Version: h.version(trustAll)}
		if how := h.differ(recorded(was), trustAll); how != "" {
			t.Errorf("%q differs from itself: %s", was.Version, how)
		}
		client := &httpClient{header: http.Header{}}
		start, end, err := client.checkResponse(resp, request{url: at, show: "f"}, was, off, length, trustAll)
		if err == nil && (start < 0 || start > off || end < off+length || end > size) {
			t.Errorf("the bytes %d to %d of %d are taken for %d of them at %d", start, end, size, length, off)
		}
		var answer *StatusError
		if again, wait := Retryable(err); wait < 0 || wait > maxRetryAfter ||
			errors.As(err, &answer) && !again && wait != 0 {
			t.Errorf("%v: again %v after %v", err, again, wait)
		}
		if wait := retryAfter(resp.Header, time.Unix(0, 0)); wait < 0 || wait > maxRetryAfter {
			t.Errorf("a wait of %v", wait)
		}
	})
}
