package ufs

import (
	"context"
	"errors"
	"net/http"

	"millrace.io/millrace/cacheclient"
)

// Open reads a range of the version, or the whole file where the server ignores ranges.
func (s *httpStore) Open(ctx context.Context, info cacheclient.Info, off, length int64) (*Body, error) {
	if err := checkRange(info, off, length); err != nil {
		return nil, err
	}
	r, err := s.request(info.Path, false)
	if err != nil {
		return nil, err
	}
	body, got, err := s.openVersion(ctx, r, info, off, length)
	if errors.Is(err, cacheclient.ErrStale) && s.stands(ctx, r, info, got, length == info.Size, err) {
		body, got, err = s.openVersion(ctx, r, info, off, length)
	}
	if err != nil {
		return nil, err
	}
	body.Confirm = s.confirmation(r, info, got, body)
	return body, nil
}

// stands reports whether an answer that looks as if of another version may be of this one.
func (s *httpStore) stands(
	ctx context.Context, r request, info cacheclient.Info, got head, whole bool, err error,
) bool {
	var marks *otherMarks
	if errors.As(err, &marks) {
		return s.settle(ctx, r, info, got, whole)
	}
	if got.size >= 0 && got.size != info.Size && s.heads.state.Load() == headsAgree {
		// The size came from a HEAD, and may be what is wrong.
		if h, err := s.client.statBy(ctx, http.MethodHead, r, nil); err == nil && h.size == info.Size {
			s.heads.distrust()
		}
	}
	return false
}

// openVersion makes a request for the range. Where the server refuses the condition (412) or the range (416), it is
// asked what the file is now: mostly it changed. When it did not, the server gets If-Match wrong, and is not sent it
// again.
func (s *httpStore) openVersion(
	ctx context.Context, r request, want cacheclient.Info, off, length int64,
) (*Body, head, error) {
	body, got, err := s.client.open(ctx, r, want, off, length, !s.noIfMatch.Load(), s.trust())
	status, _ := statusOf(err)
	if status != http.StatusPreconditionFailed && status != http.StatusRequestedRangeNotSatisfiable {
		return body, got, err
	}
	now, statErr := s.heads.ask(ctx, r)
	switch {
	case statErr != nil:
		return nil, now, statErr
	case now.dir || now.size >= 0 && now.size != want.Size:
		return nil, now, stale(r, "it changed")
	}
	if how := now.differ(recorded(want), s.trust()); how != "" {
		return nil, now, &otherMarks{stale(r, "%s", how)}
	}
	if status == http.StatusPreconditionFailed && !s.noIfMatch.Load() {
		s.noIfMatch.Store(true)
		return s.client.open(ctx, r, want, off, length, false, s.trust())
	}
	return nil, got, err
}
