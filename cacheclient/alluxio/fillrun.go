package alluxio

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/backoff"
	"millrace.io/millrace/cacheclient/ufs"
)

const (
	// pieceSize is the unit of a fill in bytes: what is marked as here, or on its way.
	pieceSize = 1 << 20
	// runPieces is the longest request to the source that nobody waits for yet, in pieces.
	runPieces = 8
	// downFor is how long a source that did not answer is asked once, with little patience, and not again and again: who
	// reads has others to turn to.
	downFor      = 10 * time.Second
	quickTimeout = 2 * time.Second
	// background is how many such requests of one fill run side by side.
	background = 3
)

// run is a request under way for the pieces [first, last).
type run struct {
	first, last int
	// at is the offset in the block up to which bytes are here.
	at int64
	// confirm asks the source whether they are the version's, nil where its answers prove that; until then they are
	// neither shown nor committed. unproven says that there is something to confirm. D-183 says why.
	confirm  func(context.Context) error
	unproven bool
	// file is a reference to the fill's, once the run needs it; it belongs to the goroutine that brings the run.
	file *blockFile
}

// shown is the offset up to which readers may have the bytes; mu is held.
func (r *run) shown() int64 {
	if r.unproven {
		return int64(r.first) * pieceSize
	}
	return r.at
}

// runOf is the request that brings a piece; mu is held.
func (fl *fill) runOf(p int) *run {
	for _, r := range fl.runs {
		if p >= r.first && p < r.last {
			return r
		}
	}
	return nil
}

// demand starts what is missing of [from, to), which somebody waits for; mu is held.
func (fl *fill) demand(from, to int64) {
	last := pieces(to)
	for p := int(from / pieceSize); p < last; p++ {
		if fl.state[p] != absent {
			continue
		}
		first := p
		for p < last && fl.state[p] == absent {
			p++
		}
		if !fl.started {
			// A reader that begins is likely to go on: one request for more than he asked.
			for p < min(first+runPieces, len(fl.state)) && fl.state[p] == absent {
				p++
			}
		}
		r := fl.start(first, p, nil)
		if fl.hasty {
			fl.head, fl.hasty = r, false
		}
	}
	fl.cursor = last
}

// goOn starts the requests that nobody waits for, once.
func (fl *fill) goOn() {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	if fl.started || fl.over {
		return
	}
	fl.started = true
	for range background {
		fl.startNext()
	}
}

// startNext starts the next request that nobody waits for, behind what was asked for last, and then what is missing
// before; mu is held.
func (fl *fill) startNext() {
	n := len(fl.state)
	for i := range n {
		first := (fl.cursor + i) % n
		if fl.state[first] != absent {
			continue
		}
		last := first
		for last < min(first+runPieces, n) && fl.state[last] == absent {
			last++
		}
		fl.cursor = last % n
		fl.start(first, last, fl.startNext)
		return
	}
}

// start begins a request for the pieces [first, last), after which next is called with mu held; mu is held. It returns
// nil where it is too late for that.
func (fl *fill) start(first, last int, next func()) *run {
	if fl.err != nil || !fl.c.begin() {
		return nil
	}
	r := &run{first: first, last: last, at: int64(first) * pieceSize}
	for p := first; p < last; p++ {
		fl.state[p] = coming
	}
	fl.runs = append(fl.runs, r)
	go func() {
		defer fl.c.work.Done()
		fl.settle(r, fl.bring(r), next)
		if r.file != nil {
			r.file.release()
		}
	}()
	return r
}

func (fl *fill) isHead(r *run) bool {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	return fl.head == r
}

// needFile waits until a run can write to the file.
func (fl *fill) needFile(r *run) error {
	if r.file != nil {
		return nil
	}
	select {
	case <-fl.ready:
	case <-fl.ctx.Done():
		return fl.ctx.Err()
	}
	fl.mu.Lock()
	defer fl.mu.Unlock()
	if fl.over {
		return errOver
	}
	r.file = fl.file.retain()
	return nil
}

// keepEarly takes the first request's bytes into memory while there is no file; false where there is one, or no room
// for them.
func (fl *fill) keepEarly(r *run, p []byte) bool {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	most := min(pieceSize, fl.length-int64(r.first)*pieceSize)
	if fl.file != nil || fl.head != r || int64(len(fl.early)+len(p)) > most {
		return false
	}
	if fl.early == nil {
		fl.early = make([]byte, 0, most)
	}
	fl.early = append(fl.early, p...)
	r.at += int64(len(p))
	fl.wake()
	return true
}

// settle takes note of a request's end.
func (fl *fill) settle(r *run, err error, next func()) {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	for i := range fl.runs {
		if fl.runs[i] == r {
			fl.runs = append(fl.runs[:i], fl.runs[i+1:]...)
			break
		}
	}
	for p := r.first; p < r.last; p++ {
		if min(int64(p+1)*pieceSize, fl.length) <= r.shown() {
			fl.state[p] = here
			fl.left--
		} else {
			fl.state[p] = absent
		}
	}
	if err != nil && fl.err == nil {
		fl.err = err
	}
	if err == nil && next != nil {
		next()
	}
	fl.wake()
}

// errNoRanges says that a source sends the whole file whatever it is asked for: side by side, requests would bring it
// again and again.
var errNoRanges = errors.New("the source has no ranges")

// bring makes attempts until the run is here, the error is final, or nothing has come for as long as the client waits.
func (fl *fill) bring(r *run) error {
	c := fl.c
	if !fl.isHead(r) {
		if err := fl.needFile(r); err != nil {
			return err
		}
	}
	if err := c.slots.Acquire(fl.ctx, 1); err != nil {
		return err
	}
	defer c.slots.Release(1)
	end := min(int64(r.last)*pieceSize, fl.length)
	giveUp := time.Now().Add(c.cfg.Timeout)
	pauses := backoff.Pauses{First: 20 * time.Millisecond, Longest: time.Second, Factor: 2}
	gone := 0
	for {
		before := r.at
		err := fl.attempt(r, end)
		if err == nil {
			err = fl.prove(r)
		}
		if err == nil {
			return nil
		}
		if r.at > before {
			giveUp = time.Now().Add(c.cfg.Timeout)
			pauses.Restart()
		}
		again, after := ufs.Retryable(err)
		wait := max(pauses.Next(), after)
		if isGone(err) {
			// One such answer may be of a server that lags behind.
			gone++
			again = gone < goneTwice
			err = cacheclient.ErrStale
		}
		silent := errors.Is(err, errSilentSource)
		if silent || again && (c.silent.was(fl.source) || time.Now().Add(wait).After(giveUp)) {
			if !answered(err) {
				c.silent.first(fl.source, downFor)
			}
			return err
		}
		if fl.ctx.Err() != nil || !again {
			return err
		}
		c.count.sourceErrors.Add(1)
		if !sleep(fl.ctx, wait) {
			return fl.ctx.Err()
		}
	}
}

// goneTwice is how often a source says that a file is gone before that is believed.
const goneTwice = 2

// answered reports whether an error is what the source says of this file: that it answers, others need not be told.
func answered(err error) bool {
	var status *ufs.StatusError
	return errors.As(err, &status) || errors.Is(err, cacheclient.ErrStale)
}

// prove has the source say that the bytes of a run are of the version, where its answers do not. Who wrote into the
// file while it was read would otherwise be cached half and half.
func (fl *fill) prove(r *run) error {
	if r.confirm == nil {
		return nil
	}
	fl.c.count.sourceRequests.Add(1)
	ctx, cancel := cacheclient.Patient(fl.ctx, fl.c.cfg.Timeout)
	defer cancel()
	if err := r.confirm(ctx); err != nil {
		return err
	}
	fl.mu.Lock()
	defer fl.mu.Unlock()
	r.confirm, r.unproven = nil, false
	fl.wake()
	return nil
}

// expect has what comes not be shown before it is confirmed, if the source gives a way to.
func (fl *fill) expect(r *run, body *ufs.Body) {
	if body.Confirm == nil {
		return
	}
	fl.mu.Lock()
	defer fl.mu.Unlock()
	r.confirm, r.unproven = body.Confirm, true
}

var errSilentSource = fmt.Errorf("%w: it brought nothing", cacheclient.ErrUnavailable)

// attempt makes one request for what is missing of a run.
func (fl *fill) attempt(r *run, end int64) (err error) {
	if r.at == end {
		// Only the source's word is missing.
		return nil
	}
	ctx, cancel := context.WithCancel(fl.ctx)
	defer cancel()
	fl.c.count.sourceRequests.Add(1)
	// Nothing for that long ends it; the run is only changed by this goroutine.
	patience := fl.c.cfg.Timeout
	if fl.c.silent.was(fl.source) {
		patience = min(patience, quickTimeout)
	}
	silence := time.AfterFunc(patience, cancel)
	defer silence.Stop()
	defer func() {
		if err != nil && ctx.Err() != nil && fl.ctx.Err() == nil {
			err = fmt.Errorf("%w for %v", errSilentSource, patience)
		}
	}()
	from := fl.base + r.at
	body, err := fl.c.sources.Open(ctx, fl.info, from, end-r.at)
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	if body.Start != from || body.End < fl.base+end {
		return errNoRanges
	}
	fl.expect(r, body)
	return fl.copy(body, r, end, silence, patience)
}

// copy writes what comes to the file, and tells readers of each part. Only the source's silence is counted.
func (fl *fill) copy(body io.Reader, r *run, end int64, silence *time.Timer, patience time.Duration) error {
	buf := buffers.Get().(*[pieceSize]byte) //nolint:forcetypeassert // the pool has nothing else
	defer buffers.Put(buf)
	for r.at < end {
		n, err := body.Read(buf[:min(pieceSize, end-r.at)])
		if n > 0 {
			fl.c.count.bytesSource.Add(int64(n))
			silence.Stop()
			if err := fl.keep(r, buf[:n]); err != nil {
				return err
			}
			silence.Reset(patience)
		}
		if err != nil && r.at < end {
			return short(err)
		}
	}
	return nil
}

// keep takes bytes that have come, and tells readers of them.
func (fl *fill) keep(r *run, p []byte) error {
	if r.file == nil && fl.keepEarly(r, p) {
		return nil
	}
	if err := fl.needFile(r); err != nil {
		return err
	}
	if _, err := r.file.file.WriteAt(p, r.at); err != nil {
		return fmt.Errorf("write to the tier: %w", err)
	}
	fl.mu.Lock()
	defer fl.mu.Unlock()
	r.at += int64(len(p))
	fl.wake()
	return nil
}

// buffers take bytes on their way from a source to a tier.
var buffers = sync.Pool{New: func() any { return new([pieceSize]byte) }}

// short makes an end that came too early an error.
func short(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
