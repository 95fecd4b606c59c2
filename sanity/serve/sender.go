package serve

import (
	"context"
	"io"
	"net/http"
	"os"

	"golang.org/x/time/rate"
)

const (
	// pieceSize is how much the kernel is given in one go without limits: the counters of a
	// running response are at most this far behind, in bytes.
	pieceSize = 4 << 20
	// chunkSize is how much is written at a time under a limit, in bytes.
	chunkSize = 64 << 10
)

// connLimiter is the context key of a connection's own limiter.
type connLimiter struct{}

// newLimiter is a token bucket of bytes; nil without a limit. The bucket holds 20 ms: a
// timer that fires late then loses nothing, and a whole GiB is at most that much early.
func newLimiter(bytesPerSecond int64) *rate.Limiter {
	if bytesPerSecond <= 0 {
		return nil
	}
	return rate.NewLimiter(rate.Limit(bytesPerSecond), max(chunkSize, int(bytesPerSecond/50)))
}

// sender is a response whose body is counted and kept to the limits.
type sender struct {
	http.ResponseWriter
	server *Server
	ctx    context.Context
	limits []*rate.Limiter
}

// sender wraps w with the limits that hold for the request.
func (s *Server) sender(w http.ResponseWriter, r *http.Request) *sender {
	conn, known := r.Context().Value(connLimiter{}).(*rate.Limiter)
	if !known {
		conn = newLimiter(s.opts.PerConnBytesPerSecond)
	}
	out := &sender{ResponseWriter: w, server: s, ctx: r.Context()}
	for _, l := range []*rate.Limiter{conn, s.total} {
		if l != nil {
			out.limits = append(out.limits, l)
		}
	}
	return out
}

// Write sends and counts p, waiting for the limits first.
func (s *sender) Write(p []byte) (int, error) {
	sent := 0
	for len(p) > 0 {
		chunk := p
		if len(s.limits) > 0 {
			chunk = p[:min(len(p), chunkSize)]
		}
		for _, l := range s.limits {
			if err := l.WaitN(s.ctx, len(chunk)); err != nil {
				return sent, err
			}
		}
		n, err := s.ResponseWriter.Write(chunk)
		s.server.bodyBytes.Add(int64(n))
		sent += n
		if err != nil {
			return sent, err
		}
		p = p[n:]
	}
	return sent, nil
}

// ReadFrom is what http.ServeContent copies with. Without limits the pieces go to the response's
// own ReadFrom, which is sendfile for a file.
func (s *sender) ReadFrom(src io.Reader) (int64, error) {
	limited, ok := src.(*io.LimitedReader)
	if len(s.limits) == 0 && ok {
		if f, ok := limited.R.(*os.File); ok {
			return s.sendFile(f, limited)
		}
	}
	buf := make([]byte, chunkSize)
	return io.CopyBuffer(struct{ io.Writer }{s}, struct{ io.Reader }{src}, buf)
}

// sendFile sends what the range has left of the file, piece by piece.
func (s *sender) sendFile(f *os.File, left *io.LimitedReader) (int64, error) {
	var sent int64
	for left.N > 0 {
		n, err := io.Copy(s.ResponseWriter, io.LimitReader(f, min(left.N, pieceSize)))
		s.server.bodyBytes.Add(n)
		sent += n
		left.N -= n
		if err != nil || n == 0 {
			return sent, err
		}
	}
	return sent, nil
}
