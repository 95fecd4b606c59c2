package gateway_test

import (
	"bytes"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"millrace.io/millrace/cacheclient/cachetest"
	"millrace.io/millrace/cacheclient/gateway"
)

func TestObjects(t *testing.T) {
	overSources(t, func(s *subject) {
		t, dir, r := s.T, s.dir, s.r
		c := r.client(r.keys)
		all := list(t, c, "", "", 1000)
		for name, want := range cachetest.Tree {
			if size, ok := all.objects[name]; !ok || size != int64(len(want)) {
				t.Errorf("%q is listed with %d bytes (%v), has %d", name, size, ok, len(want))
			}
			head, err := c.HeadObject(t.Context(), &s3.HeadObjectInput{
				Bucket: aws.String("data"),
				Key:    aws.String(name),
			})
			if err != nil {
				t.Errorf("head %q: %v", name, err)
				continue
			}
			st, err := os.Stat(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			if *head.ContentLength != int64(len(want)) ||
				!head.LastModified.Equal(st.ModTime().Truncate(time.Second)) || *head.ETag != all.etags[name] {
				t.Errorf("head %q: %d bytes, %v, %s; listed %s", name, *head.ContentLength, head.LastModified,
					*head.ETag, all.etags[name])
			}
			if got, err := get(t, c, name); err != nil || !bytes.Equal(got, want) {
				t.Errorf("get %q: %d bytes, %v", name, len(got), err)
			}
		}
		for _, key := range []string{"dir/", "dir/deep/", "odd/"} {
			head, err := c.HeadObject(t.Context(), &s3.HeadObjectInput{
				Bucket: aws.String("data"),
				Key:    aws.String(key),
			})
			if err != nil || *head.ContentLength != 0 {
				t.Errorf("head %q: %+v, %v", key, head, err)
			}
		}
		for _, key := range []string{
			"no such", "dir", "a.txt/", "no such/", "a.txt/below", "dir//inner.txt", "../x",
			"dir/../a.txt",
		} {
			if _, err := c.HeadObject(t.Context(), &s3.HeadObjectInput{
				Bucket: aws.String("data"),
				Key:    aws.String(key),
			}); !is(err, http.StatusNotFound) {
				t.Errorf("head %q: %v", key, err)
			}
			if _, err := get(t, c, key); !is(err, http.StatusNotFound) {
				t.Errorf("get %q: %v", key, err)
			}
		}
	})
}

func TestRanges(t *testing.T) {
	overSources(t, func(s *subject) {
		t, r := s.T, s.r
		c := r.client(r.keys)
		want := cachetest.Tree["one block"]
		size := len(want)
		for header, part := range map[string][]byte{
			"bytes=0-0": want[:1], "bytes=100-299": want[100:300], "bytes=1000000-": want[1000000:],
			"bytes=-5":        want[size-5:],
			"bytes=-99999999": want, "bytes=1048570-9999999": want[1048570:], "bytes=0-1,5-6": want, "nonsense": want,
			"bytes=5-2": want,
		} {
			out, err := c.GetObject(t.Context(), &s3.GetObjectInput{
				Bucket: aws.String("data"),
				Key:    aws.String("one block"), Range: aws.String(header),
			})
			if err != nil {
				t.Errorf("%s: %v", header, err)
				continue
			}
			got, err := io.ReadAll(out.Body)
			_ = out.Body.Close()
			if err != nil || !bytes.Equal(got, part) || *out.ContentLength != int64(len(part)) {
				t.Errorf("%s: %d bytes, %v, want %d", header, len(got), err, len(part))
			}
			if ranged := out.ContentRange != nil; ranged != (len(part) < size || header == "bytes=-99999999") {
				t.Errorf("%s: Content-Range %v", header, out.ContentRange)
			}
		}
		for key, header := range map[string]string{
			"one block": "bytes=1048576-", "empty": "bytes=0-",
			"a.txt": "bytes=-0",
		} {
			_, err := c.GetObject(t.Context(), &s3.GetObjectInput{
				Bucket: aws.String("data"), Key: aws.String(key),
				Range: aws.String(header),
			})
			if status, code := codeOf(err); status != http.StatusRequestedRangeNotSatisfiable ||
				code != "InvalidRange" {
				t.Errorf("%s of %q: %d %s", header, key, status, code)
			}
		}
	})
}

func TestConditions(t *testing.T) {
	overSources(t, func(s *subject) {
		t, r := s.T, s.r
		c := r.client(r.keys)
		in := func() *s3.GetObjectInput {
			return &s3.GetObjectInput{Bucket: aws.String("data"), Key: aws.String("a.txt")}
		}
		out, err := c.GetObject(t.Context(), in())
		if err != nil {
			t.Fatal(err)
		}
		_ = out.Body.Close()
		tag, at := out.ETag, *out.LastModified
		if !strings.Contains(*tag, "-") {
			t.Errorf("the ETag %s would be taken for an MD5", *tag)
		}
		for name, c2 := range map[string]struct {
			set  func(*s3.GetObjectInput)
			want int
		}{
			"match":          {func(i *s3.GetObjectInput) { i.IfMatch = tag }, 200},
			"no match":       {func(i *s3.GetObjectInput) { i.IfMatch = aws.String(`"x"`) }, 412},
			"none match":     {func(i *s3.GetObjectInput) { i.IfNoneMatch = tag }, 304},
			"none differs":   {func(i *s3.GetObjectInput) { i.IfNoneMatch = aws.String(`"x"`) }, 200},
			"modified":       {func(i *s3.GetObjectInput) { i.IfModifiedSince = aws.Time(at.Add(-time.Hour)) }, 200},
			"not modified":   {func(i *s3.GetObjectInput) { i.IfModifiedSince = aws.Time(at) }, 304},
			"unmodified":     {func(i *s3.GetObjectInput) { i.IfUnmodifiedSince = aws.Time(at) }, 200},
			"not unmodified": {func(i *s3.GetObjectInput) { i.IfUnmodifiedSince = aws.Time(at.Add(-time.Hour)) }, 412},
		} {
			i := in()
			c2.set(i)
			out, err := c.GetObject(t.Context(), i)
			status := 200
			if err != nil {
				status, _ = codeOf(err)
			} else {
				_ = out.Body.Close()
			}
			if status != c2.want {
				t.Errorf("%s: %d, want %d (%v)", name, status, c2.want, err)
			}
		}
	})
}

func TestRefusals(t *testing.T) {
	overSources(t, func(s *subject) {
		t, dir, r := s.T, s.dir, s.r
		ctx := t.Context()
		key := func(c *s3.Client) error { _, err := get(t, c, "a.txt"); return err }
		for name, keys := range map[string]gateway.Keys{
			"wrong secret": {AccessKeyID: r.keys.AccessKeyID, SecretAccessKey: "x" + r.keys.SecretAccessKey},
			"wrong key":    {AccessKeyID: "OTHER" + r.keys.AccessKeyID, SecretAccessKey: r.keys.SecretAccessKey},
		} {
			if err := key(r.client(keys)); !is(err, http.StatusForbidden) {
				t.Errorf("%s: %v", name, err)
			}
		}
		resp, err := http.Get(r.endpoint + "/data/a.txt")
		if err != nil || resp.StatusCode != http.StatusForbidden {
			t.Errorf("without keys: %v, %v", resp, err)
		}
		_ = resp.Body.Close()
		c := r.client(r.keys)
		bucket, a := aws.String("data"), aws.String("a.txt")
		for name, write := range map[string]func() error{
			"put": func() error {
				_, err := c.PutObject(ctx, &s3.PutObjectInput{Bucket: bucket, Key: a, Body: strings.NewReader("new")})
				return err
			},
			"delete": func() error {
				_, err := c.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: bucket, Key: a})
				return err
			},
			"copy": func() error {
				_, err := c.CopyObject(ctx, &s3.CopyObjectInput{
					Bucket: bucket, Key: a,
					CopySource: aws.String("data/empty"),
				})
				return err
			},
			"upload": func() error {
				_, err := c.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{Bucket: bucket, Key: a})
				return err
			},
			"create bucket": func() error {
				_, err := c.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: aws.String("other")})
				return err
			},
		} {
			if status, code := codeOf(write()); status != http.StatusForbidden || code != "AccessDenied" {
				t.Errorf("%s: %d %s", name, status, code)
			}
		}
		// The connection may end before the answer to a long one is read.
		if _, err := c.PutObject(ctx, &s3.PutObjectInput{
			Bucket: bucket, Key: a,
			Body: bytes.NewReader(make([]byte, 8<<20)),
		}); err == nil {
			t.Error("a long put succeeds")
		}
		if data, err := os.ReadFile(filepath.Join(dir, "a.txt")); err != nil || string(data) != "hello\n" {
			t.Errorf("the source has %q, %v", data, err)
		}
		if _, err := c.GetObjectTagging(ctx, &s3.GetObjectTaggingInput{Bucket: bucket, Key: a}); !is(err,
			http.StatusNotImplemented) {
			t.Errorf("tagging: %v", err)
		}
		if _, err := c.HeadObject(ctx, &s3.HeadObjectInput{Bucket: aws.String("other"), Key: a}); !is(err,
			http.StatusNotFound) {
			t.Errorf("another bucket: %v", err)
		}
		if _, err := c.HeadBucket(ctx, &s3.HeadBucketInput{Bucket: bucket}); err != nil {
			t.Errorf("the bucket: %v", err)
		}
		if out, err := c.ListBuckets(ctx, &s3.ListBucketsInput{}); err != nil || len(out.Buckets) != 1 ||
			*out.Buckets[0].Name != "data" {
			t.Errorf("buckets: %+v, %v", out, err)
		}
		if _, err := c.GetBucketLocation(ctx, &s3.GetBucketLocationInput{Bucket: bucket}); err != nil {
			t.Errorf("location: %v", err)
		}
	})
}
