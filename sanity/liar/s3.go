package liar

import (
	"encoding/xml"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
)

// bucketName is the bucket that the world is in.
const bucketName = "b"

// keyVariable is the environment's variable with the bucket's keys.
const keyVariable = "MILLRACE_LIAR_KEY"

// mostKeys is how many keys a page of a listing has at the most; small, so that listings have several.
const mostKeys = 100

// bucket is an S3 server with one bucket. Directories are what keys have before a slash.
type bucket struct {
	server
}

// newBucket serves the world as a bucket.
func newBucket(p Plan, w *World) (Source, error) {
	s := &bucket{server{plan: p, world: w}}
	// A secret is no argument, so the program takes it from here. Any will do.
	if err := os.Setenv(keyVariable, "key"); err != nil {
		return nil, err
	}
	return s, s.listen(http.HandlerFunc(s.serve))
}

// Mount is the bucket, and how to reach it. Its keys are no secrets.
func (s *bucket) Mount() (source string, flags []string) {
	options := []string{
		"endpoint=" + s.url, "provider=Other", "force_path_style=true",
		"access_key_id=env:" + keyVariable, "secret_access_key=env:" + keyVariable,
	}
	for _, o := range options {
		flags = append(flags, "--option", o)
	}
	return "s3://" + bucketName, flags
}

func (s *bucket) serve(w http.ResponseWriter, r *http.Request) {
	s.requests.Add(1)
	s.answer(r).send(w)
}

// answer decides what a request is answered.
func (s *bucket) answer(r *http.Request) *answer {
	path := strings.TrimPrefix(strings.TrimPrefix(r.URL.Path, "/"+bucketName), "/")
	if path == "" {
		return s.list(r.URL.Query())
	}
	f, v, ok := s.world.Look(path)
	if !ok {
		return refusal(http.StatusNotFound, "NoSuchKey")
	}
	return s.object(r, f, v)
}

// refusal is an error as S3 tells it.
func refusal(status int, code string) *answer {
	return textual(status, "application/xml", "<?xml version=\"1.0\"?><Error><Code>"+code+
		"</Code><Message>no</Message></Error>")
}

// listedKey is an element of a listing: an object, or a prefix where it has no version.
type listedKey struct {
	key    string
	file   *File
	object Version
}

// keys are what is below a prefix, in order, after the marker.
func (s *bucket) keys(dir *Dir, delimited bool, after string) []listedKey {
	var found []listedKey
	entries, _ := s.world.List(dir.Path)
	for _, e := range entries {
		path := join(dir.Path, e.Name)
		if e.Dir && delimited {
			found = append(found, listedKey{key: path + "/"})
		}
		if sub, ok := s.world.Dir(path); ok && !delimited {
			found = append(found, s.keys(sub, false, "")...)
		}
		if f, v, ok := s.world.Look(path); ok {
			found = append(found, listedKey{key: path, file: f, object: v})
		}
	}
	slices.SortFunc(found, func(a, b listedKey) int { return strings.Compare(a.key, b.key) })
	return slices.DeleteFunc(found, func(k listedKey) bool { return k.key <= after })
}

// list answers for a page of a listing.
func (s *bucket) list(q url.Values) *answer {
	prefix, second := q.Get("prefix"), q.Get("list-type") == "2"
	dir, ok := s.world.Dir(strings.TrimSuffix(prefix, "/"))
	var keys []listedKey
	if ok && (prefix == "" || strings.HasSuffix(prefix, "/")) {
		after := q.Get("marker")
		if second {
			after = q.Get("continuation-token")
		}
		keys = s.keys(dir, q.Get("delimiter") == "/", after)
	}
	most := mostKeys
	if n, err := strconv.Atoi(q.Get("max-keys")); err == nil && n > 0 {
		most = min(most, n)
	}
	more := len(keys) > most
	keys = keys[:min(most, len(keys))]
	a := textual(http.StatusOK, "application/xml", listingXML(prefix, keys, more, second,
		q.Get("encoding-type") == "url"))
	if ok {
		s.lieAbout(a, aboutPage, dir.Path, nil, Version{}, dir.Honest)
	}
	return a
}

// listingXML writes a page of a listing.
func listingXML(prefix string, keys []listedKey, more, second, encode bool) string {
	text := func(s string) string {
		if encode {
			s = strings.ReplaceAll(url.QueryEscape(s), "%2F", "/")
		}
		var b strings.Builder
		_ = xml.EscapeText(&b, []byte(s))
		return b.String()
	}
	var b strings.Builder
	fmt.Fprintf(&b,
		"<?xml version=\"1.0\"?><ListBucketResult><Name>%s</Name><Prefix>%s</Prefix><KeyCount>%d</KeyCount><MaxKeys>%d</MaxKeys><IsTruncated>%t</IsTruncated>",
		bucketName, text(prefix), len(keys), mostKeys, more)
	if encode {
		b.WriteString("<EncodingType>url</EncodingType>")
	}
	if more {
		name := "NextMarker"
		if second {
			name = "NextContinuationToken"
		}
		fmt.Fprintf(&b, "<%s>%s</%s>", name, text(keys[len(keys)-1].key), name)
	}
	for _, k := range keys {
		if k.file == nil {
			fmt.Fprintf(&b, "<CommonPrefixes><Prefix>%s</Prefix></CommonPrefixes>", text(k.key))
			continue
		}
		size := strconv.FormatInt(k.object.Size, 10)
		if k.file.Claims != "" {
			size = k.file.Claims
		}
		fmt.Fprintf(&b,
			"<Contents><Key>%s</Key><LastModified>%s</LastModified><ETag>%s</ETag><Size>%s</Size></Contents>",
			text(k.key), k.object.ModTime.UTC().Format("2006-01-02T15:04:05.000Z"), text(k.object.ETag), size)
	}
	b.WriteString("</ListBucketResult>")
	return b.String()
}
