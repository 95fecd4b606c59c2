package ufs

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"math"
	"net/http"
	"strings"

	"millrace.io/millrace/cacheclient"
)

const (
	// wholeContent is the size up to which all of a file is read to know its version, where nothing else tells it.
	wholeContent = 4 << 20
	// sampled is how much is read at the beginning, the middle and the end of a larger one.
	sampled = 64 << 10
	// mostCounted is how far a file is read whose size the server does not tell.
	mostCounted = 64 << 20
)

// wholeUpTo is the size up to which all of a file is read to know its version. Samples name no file that has shown
// other marks, but for one too large to be read for each part of it.
func (s *httpStore) wholeUpTo(t trust) int64 {
	switch {
	case s.whole:
		return math.MaxInt64
	case t == trustContent:
		return mostNamedBytes
	}
	return wholeContent
}

// byContent describes a file by what is in it: all of it up to a size, samples above. A size that the server does not
// tell is counted.
func (s *httpStore) byContent(ctx context.Context, r request, h head, t trust) (size int64, version string, err error) {
	if h.size > s.wholeUpTo(t) {
		version, err = s.samples(ctx, r, h.size)
		if strings.HasPrefix(version, keySamples) && h.etag != "" {
			// It counts beside what was read.
			version += "\n" + keyETag + short(h.etag)
		}
		return h.size, version, err
	}
	sum := sha256.New()
	most := int64(mostCounted)
	if h.size >= 0 {
		most = h.size
	}
	n, _, err := s.pass(ctx, r, nil, most, sum)
	switch {
	case err != nil:
		return 0, "", err
	case n > most && h.size < 0:
		return 0, "", errNoSize(r)
	case h.size >= 0 && n != h.size:
		return 0, "", fmt.Errorf("%s: %d bytes came, and %d were told: %w", r.show, n, h.size, io.ErrUnexpectedEOF)
	}
	return n, keyContent + hex.EncodeToString(sum.Sum(nil)), nil
}

// samples reads the beginning, the middle and the end of a file. Of a server without ranges, which sends all that is
// before them, it reads the whole.
func (s *httpStore) samples(ctx context.Context, r request, size int64) (string, error) {
	sum := sha256.New()
	for _, off := range []int64{0, (size - sampled) / 2, size - sampled} {
		span := http.Header{"Range": {fmt.Sprintf("bytes=%d-%d", off, off+sampled-1)}}
		n, h, err := s.pass(ctx, r, span, sampled, sum)
		switch {
		case err != nil:
			return "", err
		case !h.ranged:
			version, err := s.wholly(ctx, r, size)
			if err == nil && version == "" {
				err = fmt.Errorf("%s: other than %d bytes came: %w", r.show, size, io.ErrUnexpectedEOF)
			}
			return version, err
		case n != sampled || h.first != off:
			return "", fmt.Errorf("%s: %d bytes came from %d on, not %d from %d", r.show, n, h.first, sampled, off)
		}
	}
	return keySamples + hex.EncodeToString(sum.Sum(nil)), nil
}

// pass reads a body, or the part of it that the header asks for, into sum: most bytes at the most, and tells how many
// there are, one more than most where there are more. A server without ranges gives its beginning for any part.
func (s *httpStore) pass(
	ctx context.Context, r request, part http.Header, most int64, sum hash.Hash,
) (int64, head, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	resp, err := s.client.send(ctx, s.client.forFiles(ctx), http.MethodGet, r, part) //nolint:bodyclose // body closes it
	if err != nil {
		return 0, head{}, err
	}
	body := newPatientReader(ctx, cancel, resp.Body, r.url.Host, s.client.timeout)
	defer func() { _ = body.Close() }()
	if resp.StatusCode != http.StatusOK && (part == nil || resp.StatusCode != http.StatusPartialContent) {
		return 0, head{}, newStatusError(resp, r.show)
	}
	if err := s.client.checkEncoding(resp, r); err != nil {
		return 0, head{}, err
	}
	h := readHead(resp)
	n, err := io.Copy(sum, io.LimitReader(heardReader{ctx, body}, most))
	if err != nil || n < most || part != nil {
		return n, h, err
	}
	var more [1]byte
	m, err := io.ReadFull(body, more[:])
	if err != nil && !errors.Is(err, io.EOF) {
		return n, h, err
	}
	return n + int64(m), h, nil
}

// heardReader tells the waiters of a context of each part that comes: a question that is answered by a whole file may
// take as long as that comes.
type heardReader struct {
	ctx context.Context //nolint:containedctx // of the question that is answered by what it reads
	src io.Reader
}

func (r heardReader) Read(p []byte) (int, error) {
	n, err := r.src.Read(p)
	if n > 0 {
		cacheclient.Heard(r.ctx)
	}
	return n, err
}

// summedBody sums a whole body as it passes, to compare it with the version by content.
type summedBody struct {
	io.ReadCloser
	sum    hash.Hash
	passed int64
}

func (b *summedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	_, _ = b.sum.Write(p[:n])
	b.passed += int64(n)
	return n, err
}

// version is the version that the bytes which passed are.
func (b *summedBody) version() string { return keyContent + hex.EncodeToString(b.sum.Sum(nil)) }

// namesContent reports whether a version is that of the content.
func namesContent(version string) bool { return strings.HasPrefix(version, keyContent) }

// confirmContent sums a whole body as it comes, which costs no request. A part of one is confirmed by reading the file
// as its version was made. The whole body of a version that names no content is compared with the file, read once more.
func (s *httpStore) confirmContent(r request, want cacheclient.Info, body *Body) func(context.Context) error {
	var summed *summedBody
	if body.Start == 0 && body.End == want.Size && !strings.HasPrefix(want.Version, keySamples) {
		summed = &summedBody{ReadCloser: body.ReadCloser, sum: sha256.New()}
		body.ReadCloser, body.Alone = summed, true
	}
	return func(ctx context.Context) error {
		whole := summed != nil && summed.passed == want.Size
		var got, version string
		var err error
		switch named := namesContent(want.Version); {
		case named && whole:
			got, version = summed.version(), want.Version
		case named && !strings.HasPrefix(want.Version, keySamples):
			version = want.Version
			got, err = s.wholly(ctx, r, want.Size)
		case named:
			version = want.Version
			version, _, _ = strings.Cut(version, "\n")
			got, err = s.samples(ctx, r, want.Size)
		case whole:
			got = summed.version()
			version, err = s.wholly(ctx, r, want.Size)
		}
		switch {
		case err != nil:
			return err
		case got == "" || got != version:
			return stale(r, "its content changed")
		}
		return nil
	}
}

// wholly is the version by content of a file of this size that is read to its last byte, "" where it has another.
func (s *httpStore) wholly(ctx context.Context, r request, size int64) (string, error) {
	sum := sha256.New()
	if n, _, err := s.pass(ctx, r, nil, size, sum); err != nil || n != size {
		return "", err
	}
	return keyContent + hex.EncodeToString(sum.Sum(nil)), nil
}
