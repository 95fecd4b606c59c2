package ufs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"millrace.io/millrace/cacheclient/backoff"
)

// s3Item is an object of a listing, or what several keys begin with up to the delimiter.
type s3Item struct {
	key    string
	common bool
	// size is cacheclient.UnknownSize where the listing does not tell it.
	size    int64
	modTime time.Time
	etag    string
}

// s3Page is a page of a listing of either version, in the order of its keys.
type s3Page struct {
	items []s3Item
	// next is what the next page is asked for by, "" after the last one.
	next string
}

// slashes is the delimiter of directories.
const slashes = "/"

// pages passes on the pages of what begins with prefix, as many items a page as most says, 0 for what the options say.
func (c *s3Client) pages(ctx context.Context, prefix, delimiter string, most int32, fn func([]s3Item) error) error {
	if most == 0 {
		most = c.opt.ListChunk
	}
	var course course
	for next := ""; ; {
		page, err := c.pageOnTheWay(ctx, prefix, delimiter, next, most)
		if err == nil {
			err = course.add(page)
		}
		if err != nil {
			return err
		}
		if err := fn(page.items); err != nil {
			return err
		}
		if page.next == "" {
			return nil
		}
		next = page.next
	}
}

// mostPageTries is how often a page in the middle of a listing is asked for, and pagePauses are those between.
const mostPageTries = 5

var pagePauses = backoff.Pauses{First: 100 * time.Millisecond, Longest: time.Second, Factor: 2, Spread: 0.5}

// pageOnTheWay asks for a page, and for one in the middle of a listing again where that fails for a moment: a listing
// of a thousand pages that began anew each time would never end. D-226 says more.
func (c *s3Client) pageOnTheWay(ctx context.Context, prefix, delimiter, next string, most int32) (s3Page, error) {
	pauses := pagePauses
	for try := 1; ; try++ {
		page, err := c.page(ctx, prefix, delimiter, next, most)
		if err == nil || next == "" || try == mostPageTries || ctx.Err() != nil {
			return page, err
		}
		again, after := Retryable(explainS3(ctx, err, ""))
		pause := max(pauses.Next(), after)
		if !again || pause >= c.http.timeout {
			return page, err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return page, err
		}
	}
}

// page asks for one page, by the version and in the encoding that the server turns out to know.
func (c *s3Client) page(ctx context.Context, prefix, delimiter, next string, most int32) (s3Page, error) {
	for {
		encoding := types.EncodingType("")
		if c.encode.Load() {
			encoding = types.EncodingTypeUrl
		}
		ask := c.pageV2
		if c.noV2.Load() {
			ask = c.pageV1
		}
		page, err := ask(ctx, prefix, delimiter, next, most, encoding)
		switch {
		case encoding == "" && !c.opt.ListURLEncode.Valid && unreadable(page, err):
			c.encode.Store(true)
		case errors.Is(err, errNoV2) && next == "":
			c.noV2.Store(true)
		default:
			return page, err
		}
	}
}

// errNoV2 says that the server does not know listings of the second version.
var errNoV2 = errors.New("the server has no listings of version 2")

// unreadable reports whether a page has names that XML does not carry, which servers write as U+FFFD or fail over.
func unreadable(page s3Page, err error) bool {
	if errors.Is(err, errNoPage) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return true
	}
	return slices.ContainsFunc(page.items, func(i s3Item) bool { return strings.ContainsRune(i.key, '\uFFFD') })
}

func (c *s3Client) pageV2(
	ctx context.Context, prefix, delimiter, next string, most int32, encoding types.EncodingType,
) (s3Page, error) {
	in := &s3.ListObjectsV2Input{
		Bucket: &c.bucket, Prefix: &prefix, MaxKeys: &most, EncodingType: encoding, RequestPayer: c.payer,
	}
	in.Delimiter, in.ContinuationToken = given(delimiter), given(next)
	var out listPage
	_, err := c.api.ListObjectsV2(context.WithValue(ctx, pageKey{}, &out), in)
	switch code := statusCode(err); {
	case code == http.StatusNotImplemented || code == http.StatusBadRequest && c.opt.ListVersion == 0:
		return s3Page{}, fmt.Errorf("%w: %w", errNoV2, err)
	case err != nil:
		return s3Page{}, err
	}
	c.judge(ctx, &out)
	page := s3Page{items: out.items()}
	if out.truncated {
		if page.next = out.token; page.next == "" {
			// It took the request for one of the first version.
			return s3Page{}, errNoV2
		}
	}
	return page, nil
}

func (c *s3Client) pageV1(
	ctx context.Context, prefix, delimiter, next string, most int32, encoding types.EncodingType,
) (s3Page, error) {
	in := &s3.ListObjectsInput{
		Bucket: &c.bucket, Prefix: &prefix, MaxKeys: &most, EncodingType: encoding, RequestPayer: c.payer,
	}
	in.Delimiter, in.Marker = given(delimiter), given(next)
	var out listPage
	if _, err := c.api.ListObjects(context.WithValue(ctx, pageKey{}, &out), in); err != nil {
		return s3Page{}, err
	}
	c.judge(ctx, &out)
	page := s3Page{items: out.items()}
	if out.truncated {
		page.next = decoded(out.marker, out.encoding)
		n := len(page.items)
		switch {
		case page.next == "" && n == 0:
			return s3Page{}, errors.New("the server's listing goes on, and does not tell where")
		case page.next == "":
			page.next = page.items[n-1].key
		}
	}
	return page, nil
}

// given is a parameter, absent where it is empty: some servers refuse an empty one.
func given(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// statusCode is the HTTP status that an error of the SDK stands for, 0 where it is none.
func statusCode(err error) int {
	var status interface{ HTTPStatusCode() int }
	if err == nil || !errors.As(err, &status) {
		return 0
	}
	return status.HTTPStatusCode()
}
