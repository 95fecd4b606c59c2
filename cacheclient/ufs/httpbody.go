package ufs

import (
	"compress/flate"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"millrace.io/millrace/cacheclient"
)

type flag = atomic.Bool

// errSilent is why a request is cancelled whose body has stopped coming.
var errSilent = errors.New("nothing comes")

// patientReader ends a request when a Read has waited for longer than the timeout. The time between
// Reads is the reader's own and does not count.
//
// The timer is not touched while bytes flow: it looks once in a timeout whether a Read is waiting and since when,
// so that it costs a Read a look at the clock.
type patientReader struct {
	ctx     context.Context //nolint:containedctx // of the request this body belongs to
	cancel  context.CancelCauseFunc
	src     io.ReadCloser
	host    string
	timeout time.Duration
	timer   *time.Timer
	epoch   time.Time
	// since is when the present Read began, in nanoseconds after epoch, 0 when there is none.
	since atomic.Int64
	// armed says that the timer runs. It is set by the goroutine that starts the timer and cleared
	// by the timer before it looks at since, so that a Read is never unwatched.
	armed atomic.Bool
}

func newPatientReader(
	ctx context.Context, cancel context.CancelCauseFunc, src io.ReadCloser, host string, timeout time.Duration,
) *patientReader {
	r := &patientReader{ctx: ctx, cancel: cancel, src: src, host: host, timeout: timeout, epoch: time.Now().Add(-1)}
	r.armed.Store(true)
	r.timer = time.AfterFunc(timeout, r.look)
	return r
}

func (r *patientReader) look() {
	r.armed.Store(false)
	since := r.since.Load()
	if since == 0 {
		return
	}
	rest := r.timeout - (time.Since(r.epoch) - time.Duration(since))
	if rest <= 0 {
		r.cancel(errSilent)
	} else {
		r.arm(rest)
	}
}

func (r *patientReader) arm(d time.Duration) {
	if !r.armed.Swap(true) {
		r.timer.Reset(d)
	}
}

func (r *patientReader) Read(p []byte) (int, error) {
	r.since.Store(int64(time.Since(r.epoch)))
	r.arm(r.timeout)
	n, err := r.src.Read(p)
	r.since.Store(0)
	if err != nil && err != io.EOF { //nolint:errorlint // the bare values of net/http, once a Read
		err = r.explain(err)
	}
	return n, err
}

func (r *patientReader) explain(err error) error {
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return io.ErrUnexpectedEOF
	case errors.Is(context.Cause(r.ctx), errSilent):
		return explain(context.Background(), timeoutError{}, r.host, r.timeout)
	}
	return explain(r.ctx, err, r.host, r.timeout)
}

// Close ends the request; what has not come is not waited for.
func (r *patientReader) Close() error {
	r.timer.Stop()
	r.cancel(nil)
	return r.src.Close()
}

// heardBody tells the waiters for a listing of each part of it that comes.
type heardBody struct {
	io.ReadCloser
	ctx context.Context //nolint:containedctx // of the request this body belongs to
}

func (b heardBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if n > 0 {
		cacheclient.Heard(b.ctx)
	}
	return n, err
}

// gzipped reports whether a body is compressed by gzip.
func gzipped(resp *http.Response) bool {
	coding := strings.ToLower(resp.Header.Get("Content-Encoding"))
	return coding == "gzip" || coding == "x-gzip"
}

// strangelyPacked reports whether an index is compressed in another way.
func strangelyPacked(resp *http.Response) bool { return encoded(resp) && !gzipped(resp) }

// plainBody is the body of an index as it is, or what is in it where the server compresses it, as some do whatever they
// are asked for.
func plainBody(resp *http.Response, body io.ReadCloser) io.ReadCloser {
	if !gzipped(resp) {
		return body
	}
	return &gunzippedBody{Closer: body, src: body}
}

// gunzippedBody is what is in a compressed body.
type gunzippedBody struct {
	io.Closer
	src, plain io.Reader
}

func (b *gunzippedBody) Read(p []byte) (int, error) {
	if b.plain == nil {
		plain, err := gzip.NewReader(b.src)
		if err != nil {
			return 0, b.wrong(err)
		}
		b.plain = plain
	}
	n, err := b.plain.Read(p)
	return n, b.wrong(err)
}

// wrong makes what is no such body an error of the page.
func (b *gunzippedBody) wrong(err error) error {
	var corrupt flate.CorruptInputError
	if errors.Is(err, gzip.ErrHeader) || errors.Is(err, gzip.ErrChecksum) || errors.As(err, &corrupt) {
		return fmt.Errorf("%w: it is called compressed by gzip, and is not: %w", errNoIndex, err)
	}
	return err
}

// timeoutError is a timeout of our own.
type timeoutError struct{}

func (timeoutError) Error() string { return "timeout" }
func (timeoutError) Timeout() bool { return true }

// countedBody passes exactly left bytes on. What ends early is io.ErrUnexpectedEOF, and so is no end: a body that
// goes on after them is of another version.
type countedBody struct {
	src  io.ReadCloser
	left int64
	// open says that no length was announced, so that the end has to be seen.
	open bool
	show string
	// odd is called where such an end comes too early or too late; nil where that does not matter.
	odd func()
	// end is called at the end, nil where nothing has to be.
	end func()
	// spent says that its connection is not needed any more.
	spent flag
}

func (b *countedBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, io.EOF
	}
	if int64(len(p)) > b.left {
		p = p[:b.left]
	}
	n, err := b.src.Read(p)
	if int64(n) == b.left && b.open && (err == nil || err == io.EOF) {
		// Before its last bytes are handed on.
		if err := b.ended(err); err != nil {
			return 0, err
		}
	}
	b.left -= int64(n)
	switch {
	case b.left == 0:
		b.spent.Store(true)
		return n, nil
	case err == io.EOF:
		b.noteOdd()
		return n, io.ErrUnexpectedEOF
	}
	return n, err
}

func (b *countedBody) noteOdd() {
	if b.open && b.odd != nil {
		b.odd()
	}
}

// ended reads one byte more, and returns ErrStale where there is one.
func (b *countedBody) ended(err error) error {
	var more [1]byte
	for err == nil {
		var n int
		if n, err = b.src.Read(more[:]); n > 0 {
			b.noteOdd()
			return fmt.Errorf("%s: it is longer than it was: %w", b.show, cacheclient.ErrStale)
		}
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// Close ends the body.
func (b *countedBody) Close() error {
	b.spent.Store(true)
	if b.end != nil {
		defer b.end()
	}
	return b.src.Close()
}
