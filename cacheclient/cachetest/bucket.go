package cachetest

import (
	"bytes"
	"crypto/md5" //nolint:gosec // ETags are.
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// Bucket is an S3 server of one bucket "b", whatever the signature, with the oddities that are set.
type Bucket struct {
	// Objects are the contents by key.
	Objects map[string]string
	// ETags are those of objects whose ETag is no MD5, and ListedETags those that only listings tell.
	ETags, ListedETags map[string]string
	// Refuse names a status and a code by which a request for an object, or for a listing where key is "", fails.
	Refuse func(r *http.Request, key string) (status int, code string)
	// PageSize is how many items a page has, at most what is asked for; Before runs before each page.
	PageSize int
	Before   func(r *http.Request)
	// OnlyV1 knows no listings of version 2, and Plain ignores encoding-type.
	OnlyV1, Plain bool
	// Requests counts all that came.
	Requests atomic.Int64
}

const bucketTime = "2024-05-01T10:00:00.000Z"

// ETag is the one of an object.
func (b *Bucket) ETag(key string) string {
	if e, odd := b.ETags[key]; odd {
		return e
	}
	sum := md5.Sum([]byte(b.Objects[key])) //nolint:gosec // ETags are.
	return `"` + hex.EncodeToString(sum[:]) + `"`
}

// ServeHTTP answers for objects and listings.
func (b *Bucket) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b.Requests.Add(1)
	bucket, key, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	if bucket != "b" {
		fail(w, http.StatusNotFound, "NoSuchBucket")
		return
	}
	if b.Refuse != nil {
		if status, code := b.Refuse(r, key); status != 0 {
			fail(w, status, code)
			return
		}
	}
	if key == "" {
		b.list(w, r)
		return
	}
	data, there := b.Objects[key]
	if !there {
		fail(w, http.StatusNotFound, "NoSuchKey")
		return
	}
	if match := r.Header.Get("If-Match"); match != "" && match != b.ETag(key) {
		fail(w, http.StatusPreconditionFailed, "PreconditionFailed")
		return
	}
	w.Header().Set("ETag", b.ETag(key))
	at, _ := time.Parse(time.RFC3339, bucketTime)
	http.ServeContent(w, r, "", at, strings.NewReader(data))
}

func fail(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	_, _ = fmt.Fprintf(w, "<?xml version=\"1.0\"?><Error><Code>%s</Code><Message>m</Message></Error>", code)
}

func (b *Bucket) list(w http.ResponseWriter, r *http.Request) {
	if b.Before != nil {
		b.Before(r)
	}
	q := r.URL.Query()
	v2 := q.Get("list-type") == "2" && !b.OnlyV1
	after := q.Get("marker")
	if v2 {
		token, _ := hex.DecodeString(q.Get("continuation-token"))
		after = string(token)
	}
	most, _ := strconv.Atoi(q.Get("max-keys"))
	if b.PageSize > 0 {
		most = min(most, b.PageSize)
	}
	items := b.items(q.Get("prefix"), q.Get("delimiter"), after)
	truncated := len(items) > most
	items = items[:min(len(items), most)]
	encode := func(s string) string {
		if q.Get("encoding-type") == "url" && !b.Plain {
			return url.QueryEscape(s)
		}
		var escaped bytes.Buffer
		_ = xml.EscapeText(&escaped, []byte(s))
		return escaped.String()
	}
	var out strings.Builder
	out.WriteString("<ListBucketResult><Name>b</Name>")
	if encode("\xff") == "%FF" {
		out.WriteString("<EncodingType>url</EncodingType>")
	}
	fmt.Fprintf(&out, "<IsTruncated>%t</IsTruncated>", truncated)
	if truncated && v2 {
		fmt.Fprintf(&out, "<NextContinuationToken>%x</NextContinuationToken>", items[len(items)-1])
	}
	for _, i := range items {
		if _, object := b.Objects[i]; object && (q.Get("delimiter") == "" || !strings.HasSuffix(i, "/") ||
			i == q.Get("prefix")) {
			etag := b.ETag(i)
			if e, odd := b.ListedETags[i]; odd {
				etag = e
			}
			fmt.Fprintf(&out,
				"<Contents><Key>%s</Key><LastModified>%s</LastModified><ETag>%s</ETag><Size>%d</Size></Contents>",
				encode(i), bucketTime, strings.ReplaceAll(etag, `"`, "&quot;"), len(b.Objects[i]))
			continue
		}
		fmt.Fprintf(&out, "<CommonPrefixes><Prefix>%s</Prefix></CommonPrefixes>", encode(i))
	}
	out.WriteString("</ListBucketResult>")
	w.Header().Set("Content-Type", "application/xml")
	_, _ = io.WriteString(w, out.String())
}

// items are the keys and common prefixes after one of them, in order.
func (b *Bucket) items(prefix, delimiter, after string) []string {
	var items []string
	for key := range b.Objects {
		rest, below := strings.CutPrefix(key, prefix)
		if !below {
			continue
		}
		if n := strings.Index(rest, delimiter); delimiter != "" && n >= 0 {
			key = prefix + rest[:n+1]
		}
		if key > after {
			items = append(items, key)
		}
	}
	slices.Sort(items)
	return slices.Compact(items)
}
