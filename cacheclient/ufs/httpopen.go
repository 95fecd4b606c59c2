package ufs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"strings"

	"millrace.io/millrace/cacheclient"
)

// open asks for a range of the version that want describes, and checks that the response is of that version, as far as
// t trusts what tells versions apart, and of that range. conditional adds If-Match, which a strong ETag is needed for.
func (c *httpClient) open(
	ctx context.Context, r request, want cacheclient.Info, off, length int64, conditional bool, t trust,
) (*Body, head, error) {
	header := http.Header{"Range": {fmt.Sprintf("bytes=%d-%d", off, off+length-1)}}
	if conditional && t == trustAll && strongETag(want.Version) {
		header.Set("If-Match", want.Version)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	end := c.hold()
	resp, err := c.send(ctx, c.files, http.MethodGet, r, header)
	if err != nil {
		end()
		cancel(nil)
		return nil, head{}, err
	}
	first, last, err := c.checkResponse(resp, r, want, off, length, t)
	if err != nil {
		discard(resp)
		end()
		cancel(nil)
		return nil, readHead(resp), err
	}
	patient := newPatientReader(ctx, cancel, resp.Body, r.url.Host, c.timeout)
	counted := &countedBody{src: patient, left: last - first, open: resp.ContentLength < 0, show: r.show, end: end}
	return &Body{ReadCloser: counted, Start: first, End: last, spent: &counted.spent}, readHead(resp), nil
}

// checkResponse tells which bytes of the file will come. Anything that shows another version is
// ErrStale; statuses 412 and 416 are returned as they are, to be confirmed.
func (c *httpClient) checkResponse(
	resp *http.Response, r request, want cacheclient.Info, off, length int64, t trust,
) (start, end int64, err error) {
	if err := c.checkEncoding(resp, r); err != nil && resp.StatusCode < http.StatusMultipleChoices {
		return 0, 0, err
	}
	switch {
	case isRedirect(resp):
		return 0, 0, fmt.Errorf("%s is a directory now: %w", r.show, cacheclient.ErrStale)
	case resp.StatusCode == http.StatusPartialContent:
		start, end, err = checkPartial(resp, r, want, off, length)
	case resp.StatusCode == http.StatusOK:
		end, err = checkWhole(resp, r, want)
	default:
		return 0, 0, newStatusError(resp, r.show)
	}
	if err != nil {
		return 0, 0, err
	}
	if how := readHead(resp).differ(recorded(want), t); how != "" {
		return 0, 0, &otherMarksError{stale(r, "%s", how)}
	}
	return start, end, nil
}

// otherMarksError is ErrStale by validators alone.
type otherMarksError struct{ err error }

func (e *otherMarksError) Error() string { return e.err.Error() }
func (e *otherMarksError) Unwrap() error { return e.err }

func checkPartial(resp *http.Response, r request, want cacheclient.Info, off, length int64) (
	start, end int64, err error,
) {
	if kind := resp.Header.Get("Content-Type"); strings.HasPrefix(strings.ToLower(kind), "multipart/byteranges") {
		return 0, 0, fmt.Errorf("%s answers one range in several parts, which is refused", r.show)
	}
	got, ok := parseContentRange(resp.Header.Get("Content-Range"))
	switch {
	case !ok || got.first < 0:
		return 0, 0, fmt.Errorf("%s answers 206 with the Content-Range %q", r.show, resp.Header.Get("Content-Range"))
	case got.total >= 0 && got.total != want.Size:
		return 0, 0, stale(r, "it has %d bytes, not %d", got.total, want.Size)
	case got.first != off || got.last != off+length-1:
		return 0, 0, fmt.Errorf("%s answers the bytes %d-%d when asked for %d-%d", r.show, got.first, got.last, off,
			off+length-1)
	case resp.ContentLength >= 0 && resp.ContentLength != length:
		return 0, 0, fmt.Errorf("%s announces %d bytes for a range of %d", r.show, resp.ContentLength, length)
	}
	return off, off + length, nil
}

// checkWhole accepts a 200, by which the server ignores the range, when the body is the file
// as it was described.
func checkWhole(resp *http.Response, r request, want cacheclient.Info) (end int64, err error) {
	if resp.ContentLength >= 0 && resp.ContentLength != want.Size {
		return 0, stale(r, "it has %d bytes, not %d", resp.ContentLength, want.Size)
	}
	return want.Size, nil
}

func stale(r request, how string, args ...any) error {
	return fmt.Errorf("%s: %s: %w", r.show, fmt.Sprintf(how, args...), cacheclient.ErrStale)
}

// openConfirmed opens, and where the server refuses the condition (412) or the range (416) asks what the file is
// now: mostly it changed. When it did not, the server gets If-Match wrong, and is not
// sent it again.
func (c *httpClient) openConfirmed(
	ctx context.Context, r request, want cacheclient.Info, off, length int64, noIfMatch *flag,
	stat func(context.Context) (cacheclient.Info, error),
) (*Body, head, error) {
	body, got, err := c.open(ctx, r, want, off, length, !noIfMatch.Load(), trustAll)
	var status *StatusError
	if !errors.As(err, &status) || status.Code != http.StatusPreconditionFailed &&
		status.Code != http.StatusRequestedRangeNotSatisfiable {
		return body, got, err
	}
	now, statErr := stat(ctx)
	switch {
	case errors.Is(statErr, fs.ErrNotExist):
		return nil, got, statErr
	case statErr != nil:
		return nil, got, statErr
	case now.Dir || now.Mark() != want.Mark():
		return nil, got, stale(r, "it changed")
	case status.Code == http.StatusPreconditionFailed && !noIfMatch.Load():
		noIfMatch.Store(true)
		return c.open(ctx, r, want, off, length, false, trustAll)
	}
	return nil, got, err
}
