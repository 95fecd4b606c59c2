package ufs

import (
	"context"
	"time"

	"millrace.io/millrace/cacheclient"
)

// confirmation is how a body that was opened with this trust is confirmed: not at all where its answer proves the
// version.
func (s *httpStore) confirmation(
	r request, want cacheclient.Info, got head, body *Body, t trust,
) func(context.Context) error {
	was := recorded(want)
	if namesContent(want.Version) || t == trustContent || was.nothing(t) {
		return s.confirmContent(r, want, body)
	}
	if t == trustSize || got.proves(want, t) {
		return nil
	}
	whole := body.Start == 0 && body.End == want.Size
	return func(ctx context.Context) error {
		h, err := s.nowTold(ctx, r, was, t)
		switch {
		case err != nil:
			return err
		case h.dir:
			return stale(r, "it is a directory now")
		case h.size >= 0 && h.size != want.Size:
			return stale(r, "it has %d bytes, not %d", h.size, want.Size)
		case h.shows(was, t), s.settleAnswer(ctx, r, want, h, whole):
			return nil
		}
		if how := h.differ(was, t); how != "" {
			return stale(r, "%s", how)
		}
		return stale(r, "nothing tells any more which version it is")
	}
}

// nowTold is the head of a file now. A HEAD which tells none of the validators of the version is asked again by GET.
// D-221 says why.
func (s *httpStore) nowTold(ctx context.Context, r request, was validators, t trust) (head, error) {
	h, err := s.heads.ask(ctx, r)
	if err != nil || h.dir || h.shows(was, t) || h.differ(was, t) != "" {
		return h, err
	}
	return s.client.byGet(ctx, r)
}

// openGrown is openVersion for bytes that came when their version was old enough to be told by its time. A file which
// was modified just now is read when two seconds have passed: in them it may be written again, and tell the same.
// D-223 says why.
func (s *httpStore) openGrown(
	ctx context.Context, r request, want cacheclient.Info, off, length int64, t trust,
) (*Body, head, error) {
	if err := s.grow(ctx, want); err != nil {
		return nil, head{}, err
	}
	body, got, err := s.openVersion(ctx, r, want, off, length, t)
	if err != nil || !got.growing(want, t) || !s.plant(want, got) {
		return body, got, err
	}
	_ = body.Close()
	if err := s.grow(ctx, want); err != nil {
		return nil, head{}, err
	}
	return s.openVersion(ctx, r, want, off, length, t)
}

// growing reports whether the time that a version is told by may stand for two contents. One far in the future grows
// no older by waiting.
func (h head) growing(want cacheclient.Info, t trust) bool {
	byTime := t == trustTime || t == trustAll && (!strongETag(want.Version) || !mayBeHash(want.Version))
	return byTime && !namesContent(want.Version) && h.young() && h.date.Sub(h.modTime) > -youngest
}

// plant notes when a version is old enough. It reports false where that was noted before, and is past: a server whose
// clock stands still is waited for once.
func (s *httpStore) plant(want cacheclient.Info, got head) bool {
	key := cacheclient.Identify(want).ID
	grown := time.Now().Add(youngest - got.date.Sub(got.modTime))
	if before, known, _ := s.young.PeekOrAdd(key, grown); known {
		return time.Now().Before(before)
	}
	return true
}

// grow waits until a version is old enough, as far as plant noted that.
func (s *httpStore) grow(ctx context.Context, want cacheclient.Info) error {
	grown, known := s.young.Peek(cacheclient.Identify(want).ID)
	if !known {
		return nil
	}
	for {
		left := time.Until(grown)
		if left <= 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(min(left, youngest/8)):
			cacheclient.Heard(ctx)
		}
	}
}
