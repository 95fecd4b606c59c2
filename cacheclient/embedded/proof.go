package embedded

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/ufs"
)

// proof is how a fetch learns whether bytes are the version's, where the answer that they came in does not tell: the
// source is asked after them, once a run, and where nothing more comes for a while. Until it has answered they belong
// to no file: no reader has them, no block is vouched for, and so neither this process nor the kernel can keep what
// turns out to be another version's. D-140 says why.
type proof struct {
	// mu serializes the goroutine of the fetch, which lets it go while it waits for the body, and the one that asks in
	// pauses: what is below, and fetch.at, is of the one that has it.
	mu sync.Mutex
	// failed is what the question in a pause found.
	failed error
	// ask asks the source; nil where the bytes behind fetch.shown need no proof.
	ask func(context.Context) error
	// sums are the blocks that are whole in the tier, and held those in memory.
	sums []blockSum
	held []*stagedBlock
	// alone says that ask speaks of one body alone: what another body brought is not proven by it.
	alone bool
	// since is when the first of the bytes in doubt came.
	since time.Time
	// from is the checksum of the block that fetch.shown is in, up to there.
	from uint32
}

// blockSum is a block and its checksum.
type blockSum struct {
	block int64
	sum   uint32
}

// trust takes over how the bytes of a body are proven. Those of an earlier body that are still in doubt stay so.
func (f *fetch) trust(body *ufs.Body) {
	if body.Confirm != nil || f.doubtful() == 0 {
		f.proof.ask, f.proof.alone = body.Confirm, body.Alone
		f.restarts.Store(body.Alone)
	}
}

// proveEvery is how long readers of a slow source wait for bytes that are here and in doubt.
const proveEvery = time.Second

// due reports whether what is in doubt is to be proven now: a whole run, or bytes that have waited for long. A body
// that proves itself does so at its end: before that the file would be read once more for each run.
func (f *fetch) due() bool {
	return !f.proof.alone && (f.doubtful() >= maxRun*BlockSize ||
		f.doubtful() > 0 && time.Since(f.proof.since) >= proveEvery)
}

// doubtful is how many bytes have come and are not proven.
func (f *fetch) doubtful() int64 { return f.at - f.shown }

// vouch says that a block is in the tier and right, at once or when that is proven.
func (f *fetch) vouch(b int64) error {
	if f.proof.ask != nil {
		f.proof.sums = append(f.proof.sums, blockSum{b, f.sum})
		return nil
	}
	return f.set(b, f.sum)
}

// set has the state vouch for a block, and then the entry. It needs no mu for the entry's state file, which stays while
// a fetch runs.
func (f *fetch) set(b int64, sum uint32) error {
	if err := f.e.state.set(b, sum); err != nil {
		return fmt.Errorf("%w: %w", errTierWrite, err)
	}
	f.e.mu.Lock()
	defer f.e.mu.Unlock()
	if f.spoiled {
		return context.Canceled
	}
	f.e.have.set(b)
	return nil
}

// advance notes that the bytes up to the offset are here, and shows them if they are proven.
func (f *fetch) advance(at int64) error {
	f.e.mu.Lock()
	defer f.e.mu.Unlock()
	if f.spoiled {
		return context.Canceled
	}
	if f.doubtful() == 0 {
		f.proof.since = time.Now()
	}
	f.at = at
	if f.proof.ask == nil {
		f.show()
	}
	return nil
}

// show lets readers have what is here; entry.mu is held.
func (f *fetch) show() {
	for _, sb := range f.proof.held {
		sb.filled = min(f.e.info.Size-sb.block*BlockSize, BlockSize)
	}
	if f.current != nil {
		f.current.filled = f.at - f.current.block*BlockSize
	}
	f.shown, f.proof.from = f.at, f.sum
	f.e.wake(f.run.first*BlockSize, f.at)
	if f.pass != nil {
		// A reader that wants again what was passed is not to wait for this one.
		f.run.first = f.at / BlockSize
	}
}

// prove asks the source about what is in doubt, and shows it.
func (f *fetch) prove(ctx context.Context, patience time.Duration) error {
	if f.proof.ask == nil || f.doubtful() == 0 {
		return nil
	}
	f.stall.Reset(patience)
	f.e.c.count.sourceRequests.Add(1)
	if err := f.proof.ask(cacheclient.OnHeard(ctx, func() { f.stall.Reset(patience) })); err != nil {
		return err
	}
	f.stall.Reset(patience)
	for _, s := range f.proof.sums {
		if err := f.set(s.block, s.sum); err != nil {
			return err
		}
	}
	f.showNow()
	held := f.proof.held
	f.proof.sums, f.proof.held = nil, nil
	for _, sb := range held {
		f.e.c.staging.filled(sb)
	}
	return nil
}

// watch proves what is in doubt while the body pauses, until the function that it returns is called.
func (f *fetch) watch(ctx context.Context, patience time.Duration) (stop func()) {
	if f.proof.ask == nil || f.proof.alone {
		return func() {}
	}
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		look := time.NewTicker(proveEvery / 4)
		defer look.Stop()
		for f.provePaused(ctx, patience) {
			select {
			case <-look.C:
			case <-done:
				return
			case <-ctx.Done():
				return
			}
		}
	}()
	return func() {
		close(done)
		<-ended
	}
}

// provePaused proves what has been in doubt for long, and reports whether it stood; where it did not the attempt ends.
func (f *fetch) provePaused(ctx context.Context, patience time.Duration) bool {
	f.proof.mu.Lock()
	defer f.proof.mu.Unlock()
	if f.doubtful() == 0 || time.Since(f.proof.since) < proveEvery {
		return true
	}
	if f.proof.failed = f.prove(ctx, patience); f.proof.failed != nil {
		f.interrupt()
		return false
	}
	return true
}

// watchedBody is a body during whose reads the proof may go on.
type watchedBody struct {
	io.Reader

	f *fetch
}

// Read implements io.Reader; proof.mu is held by the caller.
func (b *watchedBody) Read(p []byte) (int, error) {
	b.f.proof.mu.Unlock()
	defer b.f.proof.mu.Lock()
	return b.Reader.Read(p)
}

// showNow is show, for a caller without the lock.
func (f *fetch) showNow() {
	f.e.mu.Lock()
	defer f.e.mu.Unlock()
	f.show()
}

// settleStaged ends the filling of the present block in memory, which is full.
func (f *fetch) settleStaged() {
	if f.proof.ask != nil {
		f.proof.held = append(f.proof.held, f.current)
	} else {
		f.e.c.staging.filled(f.current)
	}
	f.current = nil
}

// rewind forgets what is in doubt, and the block in memory that is not full.
func (f *fetch) rewind() {
	e := f.e
	unread := f.proof.held
	if f.current != nil {
		unread = append(unread, f.current)
	}
	f.goBack(unread)
	f.proof.sums, f.proof.held, f.current = nil, nil, nil
	for _, sb := range unread {
		e.dropStaged(sb)
		e.c.staging.filled(sb)
	}
}

// goBack has the fetch go on where what was shown ends. unread are the blocks in memory that were not shown whole.
func (f *fetch) goBack(unread []*stagedBlock) {
	e := f.e
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(unread) > 0 {
		// A part of the first of them may be proven; it goes with the rest.
		f.shown = min(f.shown, unread[0].block*BlockSize)
	}
	if f.inTier && !e.resumed {
		for b := blocksIn(f.shown); b < blocksIn(f.at); b++ {
			if !e.have.has(b) {
				e.punch(run{b, b + 1})
			}
		}
	}
	f.at, f.sum = f.shown, f.proof.from
}
