package gateway

import (
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/rclone/gofakes3/signature"
)

const requestIDHeader = "X-Amz-Request-Id"

// xmlns is the name space of S3's documents.
const xmlns = "http://s3.amazonaws.com/doc/2006-03-01/"

// operation is one of S3's; its name is a label of metrics.
type operation struct {
	name  string
	serve func(w http.ResponseWriter, r *http.Request, key string) error
}

// ServeHTTP answers S3 requests, path style.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	begun := time.Now()
	w.Header().Set(requestIDHeader, fmt.Sprintf("%016X", rand.Uint64())) //nolint:gosec // A name, no secret.
	w.Header().Set("Server", "millrace")
	resp := &response{ResponseWriter: w}
	op, err := g.handle(resp, r)
	if err != nil {
		g.fail(resp, r, op, err)
	}
	g.metrics.request(op, resp.status, resp.early)
	g.log.Debug("request", "operation", op, "path", r.URL.Path, "range", r.Header.Get("Range"),
		"status", resp.status, "early", resp.early, "took", time.Since(begun))
}

// handle finds out what is asked for, and has it done.
func (g *Gateway) handle(w *response, r *http.Request) (op string, err error) {
	if r.ContentLength != 0 {
		// The connection is not kept for the sake of a body that is not read.
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTimeout))
		w.Header().Set("Connection", "close")
	}
	// Anybody can reach the port, so nothing is done before this.
	if code := signature.V4SignVerifyWithLookup(r, g.secret); code != signature.ErrNone {
		e := signature.GetAPIError(code)
		return "refused", &s3Error{status: e.HTTPStatusCode, code: e.Code, message: e.Description}
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead || r.ContentLength != 0 {
		return "refused", errReadOnly
	}
	o, key, err := g.route(r)
	if err != nil {
		return "refused", err
	}
	leave, err := g.place(r.Context())
	if err != nil {
		return o.name, err
	}
	defer leave()
	return o.name, o.serve(w, r, key)
}

// secret looks the secret of an access key up.
func (g *Gateway) secret(accessKeyID string) (string, bool) {
	return g.cfg.Keys.SecretAccessKey, accessKeyID == g.cfg.Keys.AccessKeyID
}

// route finds the operation and the key. What a query asks for beyond reading and listing is refused, not ignored.
func (g *Gateway) route(r *http.Request) (operation, string, error) {
	path := strings.TrimPrefix(r.URL.Path, "/")
	bucket, key, _ := strings.Cut(path, "/")
	query := r.URL.Query()
	switch {
	case bucket == "":
		if r.Method == http.MethodHead || !onlyKnown(query, listBucketsQuery) {
			return operation{}, "", errUnknownResource
		}
		return operation{"list-buckets", g.listBuckets}, "", nil
	case bucket != g.cfg.Bucket:
		return operation{}, "", errNoSuchBucket
	case key != "" && !onlyKnown(query, objectQuery), key != "" && query.Get("versionId") != "" &&
		query.Get("versionId") != "null":
		return operation{}, "", errUnknownResource
	case key != "" && r.Method == http.MethodHead:
		return operation{"head", g.headObject}, key, nil
	case key != "":
		return operation{"get", g.getObject}, key, nil
	case r.Method == http.MethodHead:
		return operation{"head-bucket", g.headBucket}, "", nil
	case query.Has("location"):
		return operation{"location", g.getLocation}, "", nil
	case query.Has("versioning"):
		return operation{"versioning", g.getVersioning}, "", nil
	case !onlyKnown(query, listQuery):
		return operation{}, "", errUnknownResource
	}
	return operation{"list", g.listObjects}, "", nil
}

// The parameters that are understood; those that begin with x-amz- or are x-id are about the request itself.
var (
	listBucketsQuery = []string{"max-buckets", "prefix", "continuation-token", "bucket-region"}
	objectQuery      = []string{"versionId"}
	listQuery        = []string{
		"list-type", "prefix", "delimiter", "max-keys", "marker", "start-after", "continuation-token", "encoding-type",
		"fetch-owner",
	}
)

func onlyKnown(query url.Values, names []string) bool {
next:
	for name := range query {
		if lower := strings.ToLower(name); strings.HasPrefix(lower, "x-amz-") || lower == "x-id" {
			continue
		}
		for _, n := range names {
			if n == name {
				continue next
			}
		}
		return false
	}
	return true
}

// fail answers with an error, or where the response has begun lets net/http cut the connection: it does so when fewer
// bytes were written than Content-Length says.
func (g *Gateway) fail(w *response, r *http.Request, op string, err error) {
	gone := r.Context().Err() != nil
	switch {
	case gone:
		w.early = "gone"
	case w.status != 0:
		w.early = "cut"
		g.log.Warn("a response was cut short", "operation", op, "path", r.URL.Path, "error", err)
	}
	if w.status != 0 {
		return
	}
	e := asS3(err)
	var own *s3Error
	if !gone && e.status >= http.StatusInternalServerError && !errors.As(err, &own) {
		g.log.Warn("a request failed", "operation", op, "path", r.URL.Path, "error", err)
	}
	writeError(w, r, e)
}

// response knows whether it has begun.
type response struct {
	http.ResponseWriter
	// status is 0 until the head is written.
	status int
	// early says why the response ends before its end: "gone" with the client, or "cut" by the gateway; "" if it does not.
	early string
}

// WriteHeader remembers the status.
func (w *response) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap lets http.ResponseController find the connection's deadlines.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// listBuckets tells the one bucket.
func (g *Gateway) listBuckets(w http.ResponseWriter, r *http.Request, _ string) error {
	type bucket struct {
		Name         string
		CreationDate string
	}
	type owner struct{ ID, DisplayName string }
	document := struct {
		XMLName xml.Name `xml:"ListAllMyBucketsResult"`
		Xmlns   string   `xml:"xmlns,attr"`
		Owner   owner
		Buckets []bucket `xml:"Buckets>Bucket"`
	}{Xmlns: xmlns, Owner: owner{"millrace", "millrace"}}
	if q := r.URL.Query(); strings.HasPrefix(g.cfg.Bucket, q.Get("prefix")) && !q.Has("continuation-token") {
		document.Buckets = []bucket{{g.cfg.Bucket, isoTime(unknownTime)}}
	}
	writeXML(w, http.StatusOK, document)
	return nil
}

func (g *Gateway) headBucket(w http.ResponseWriter, _ *http.Request, _ string) error {
	w.WriteHeader(http.StatusOK)
	return nil
}

func (g *Gateway) getLocation(w http.ResponseWriter, _ *http.Request, _ string) error {
	writeXML(w, http.StatusOK, struct {
		XMLName xml.Name `xml:"LocationConstraint"`
		Xmlns   string   `xml:"xmlns,attr"`
	}{Xmlns: xmlns})
	return nil
}

func (g *Gateway) getVersioning(w http.ResponseWriter, _ *http.Request, _ string) error {
	writeXML(w, http.StatusOK, struct {
		XMLName xml.Name `xml:"VersioningConfiguration"`
		Xmlns   string   `xml:"xmlns,attr"`
	}{Xmlns: xmlns})
	return nil
}

// isoTime is a time as S3's documents have it.
func isoTime(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

var _ slog.LogValuer = Keys{}
