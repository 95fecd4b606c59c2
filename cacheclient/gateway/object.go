package gateway

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/border"
)

// metadataTimeout bounds the requests that send no bytes of files. Alluxio's S3 client waits for a minute.
const metadataTimeout = 55 * time.Second

// headObject describes a file, or the mark of a directory.
func (g *Gateway) headObject(w http.ResponseWriter, r *http.Request, key string) error {
	ctx, cancel := context.WithTimeoutCause(r.Context(), metadataTimeout, errBusy)
	defer cancel()
	info, err := g.describe(ctx, r, key)
	if err != nil {
		return err
	}
	describeHeaders(w.Header(), info)
	if err := checkConditions(r.Header, info); err != nil {
		return err
	}
	w.Header().Set("Content-Length", strconv.FormatInt(info.Size, 10))
	w.WriteHeader(http.StatusOK)
	return nil
}

// describe is what a key names: a file, or with a slash at its end a directory.
func (g *Gateway) describe(ctx context.Context, r *http.Request, key string) (cacheclient.Info, error) {
	path, wantDir := strings.CutSuffix(key, "/")
	if !isPath(path) {
		return cacheclient.Info{}, errNoSuchKey
	}
	ask := g.attributes.stat
	if conditional(r.Header) {
		ask = g.attributes.ask
	}
	info, err := ask(ctx, path)
	switch {
	case err != nil:
		return cacheclient.Info{}, err
	case info.Dir != wantDir, path == "":
		return cacheclient.Info{}, errNoSuchKey
	case info.Dir:
		info.Size = 0
	}
	return info, nil
}

// isPath reports whether a key, without the slash of a directory, is the path of something: a source would read
// "a//b" as "a/b", which is another key.
func isPath(key string) bool {
	for name := range strings.SplitSeq(key, "/") {
		if !border.Name(name) {
			return false
		}
	}
	return true
}

// getObject sends a file, or a range of it.
func (g *Gateway) getObject(w http.ResponseWriter, r *http.Request, key string) error {
	ctx := r.Context()
	s, err := g.openVersion(ctx, r, key)
	var own *s3Error
	if errors.As(err, &own) && s != nil {
		describeHeaders(w.Header(), s.info)
	}
	if err != nil {
		return err
	}
	defer s.close()
	h := w.Header()
	describeHeaders(h, s.info)
	h.Set("Content-Length", strconv.FormatInt(s.end-s.at, 10))
	status := http.StatusOK
	if s.partial {
		status = http.StatusPartialContent
		h.Set("Content-Range", "bytes "+strconv.FormatInt(s.at, 10)+"-"+strconv.FormatInt(s.end-1, 10)+"/"+
			strconv.FormatInt(s.info.Size, 10))
	}
	w.WriteHeader(status)
	return s.sendTo(w)
}

// openVersion opens what the request asks for. What is remembered of the file may be old: then the source says that it
// has another version, and is asked for that.
func (g *Gateway) openVersion(ctx context.Context, r *http.Request, key string) (*stream, error) {
	path := strings.TrimSuffix(key, "/")
	info, remembered, _ := g.attributes.recall(path)
	// An empty file is not opened, so that nothing would prove it.
	remembered = remembered && !info.Dir && info.Size > 0 && path == key && !conditional(r.Header)
	for {
		var err error
		if !remembered {
			if info, err = g.describe(ctx, r, key); err != nil {
				return nil, err
			}
		}
		s, err := g.newStream(ctx, r, info)
		if err == nil || !errors.Is(err, cacheclient.ErrStale) || !remembered {
			return s, err
		}
		g.attributes.forget(path)
		remembered = false
	}
}

// newStream opens the range of the version that the request asks for, if its conditions hold.
func (g *Gateway) newStream(ctx context.Context, r *http.Request, info cacheclient.Info) (*stream, error) {
	s := &stream{gateway: g, ctx: ctx, info: info, end: info.Size}
	if err := checkConditions(r.Header, info); err != nil {
		return s, err
	}
	asked, err := parseRange(r.Header.Get("Range"), info.Size)
	if err != nil {
		return nil, err
	}
	s.at, s.end, s.stop, s.partial = asked.first, asked.end, asked.end, asked.partial
	if asked.endless {
		s.bound(g.cfg.BlockSize)
	}
	if s.at == s.end {
		return s, nil
	}
	if err := s.open(); err != nil {
		return nil, err
	}
	return s, nil
}

func describeHeaders(h http.Header, info cacheclient.Info) {
	h.Set("Etag", etag(info))
	h.Set("Last-Modified", modified(info).Format(http.TimeFormat))
	h.Set("Accept-Ranges", "bytes")
	kind := "binary/octet-stream"
	if info.Dir {
		kind = "application/x-directory"
	}
	h.Set("Content-Type", kind)
}

// byteRange is the part of a file that a request asks for.
type byteRange struct {
	// first is the offset of the first byte, end the one after the last.
	first, end int64
	// partial says that it was asked for as a range.
	partial bool
	// endless says that the end of the file was not named: "bytes=5-", or by Alluxio "bytes=5-9223372036854775806".
	endless bool
}

// parseRange reads the header Range (RFC 9110, section 14.2). What is not one range of bytes is ignored, as S3 does.
func parseRange(header string, size int64) (byteRange, error) {
	spec, ok := strings.CutPrefix(header, "bytes=")
	from, to, dash := strings.Cut(strings.TrimSpace(spec), "-")
	start, hasStart := number(from)
	last, hasLast := number(to)
	r := byteRange{end: size, partial: true}
	switch {
	case !ok || !dash || from != "" && !hasStart || to != "" && !hasLast || !hasStart && !hasLast ||
		hasStart && hasLast && last < start:
		return byteRange{end: size, endless: true}, nil
	case !hasStart:
		// The last bytes.
		r.first = max(0, size-last)
	case hasLast:
		r.first, r.end, r.endless = start, min(last, size-1)+1, last >= size
	default:
		r.first, r.endless = start, true
	}
	if r.first >= size {
		return byteRange{}, errNoRange
	}
	return r, nil
}

// number is a number without a sign.
func number(s string) (int64, bool) {
	n, err := strconv.ParseUint(s, 10, 63)
	return int64(n), err == nil
}

func conditional(h http.Header) bool {
	return h.Get("If-Match") != "" || h.Get("If-None-Match") != "" || h.Get("If-Modified-Since") != "" ||
		h.Get("If-Unmodified-Since") != ""
}

// checkConditions compares the version with the conditions of a request (RFC 9110, section 13.2.2). Of a file whose
// time is not known no condition about time holds or fails.
func checkConditions(h http.Header, info cacheclient.Info) error {
	if v := h.Get("If-Match"); v != "" {
		if !matches(v, etag(info)) {
			return errPrecondition
		}
	} else if changed, ok := changedSince(h.Get("If-Unmodified-Since"), info); ok && changed {
		return errPrecondition
	}
	if v := h.Get("If-None-Match"); v != "" {
		if matches(v, etag(info)) {
			return errNotModified
		}
	} else if changed, ok := changedSince(h.Get("If-Modified-Since"), info); ok && !changed {
		return errNotModified
	}
	return nil
}

// changedSince reports whether the file is younger than a date, if both are known.
func changedSince(date string, info cacheclient.Info) (changed, ok bool) {
	t, err := http.ParseTime(date)
	return info.ModTime.Truncate(time.Second).After(t), err == nil && !info.ModTime.IsZero()
}

// matches reports whether a list of ETags has the tag. Clients of S3 leave the quotes out at times.
func matches(list, tag string) bool {
	for t := range strings.SplitSeq(list, ",") {
		t = strings.TrimPrefix(strings.TrimSpace(t), "W/")
		if t == "*" || strings.Trim(t, `"`) == strings.Trim(tag, `"`) {
			return true
		}
	}
	return false
}
