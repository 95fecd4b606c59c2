package ufs

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
)

// What is known of a server's answers to HEAD.
const (
	// headsUnknown: none was compared with a GET yet.
	headsUnknown int32 = iota
	// headsAgree: one told the size of a file as GET did.
	headsAgree
	// headsDiffer: they are not asked for any more.
	headsDiffer
)

// heads asks for heads of files, by HEAD once that was seen to tell what GET does. D-151 and D-194 say why.
type heads struct {
	client *httpClient
	notes  *notes
	state  atomic.Int32
	// comparing says that a HEAD is being compared, by one of work, which ends with the context.
	comparing atomic.Bool
	work      sync.WaitGroup
	ctx       context.Context //nolint:containedctx // of the work, which no request waits for
	stop      context.CancelFunc
}

// begin prepares it for use.
func (a *heads) begin(client *httpClient, noticed *notes, never bool) {
	a.client, a.notes = client, noticed
	a.ctx, a.stop = context.WithCancel(context.Background())
	if never {
		a.state.Store(headsDiffer)
	}
}

// close ends the work.
func (a *heads) close() {
	a.stop()
	a.work.Wait()
}

// ask is the head of a file, whose size may be missing. Until HEAD is known GET tells it, and a HEAD is compared with
// that beside the reader.
func (a *heads) ask(ctx context.Context, r request) (head, error) {
	switch a.state.Load() {
	case headsDiffer:
		return a.client.byGet(ctx, r)
	case headsUnknown:
		g, err := a.client.byGet(ctx, r)
		if err == nil && !g.dir && g.size > 0 && a.comparing.CompareAndSwap(false, true) {
			a.work.Go(func() {
				defer a.comparing.Store(false)
				ctx, cancel := context.WithTimeout(a.ctx, 2*a.client.timeout)
				defer cancel()
				h, err := a.client.statBy(ctx, http.MethodHead, r, nil)
				a.learn(judgeHead(h, err, g))
			})
		}
		return g, err
	}
	h, err := a.client.statBy(ctx, http.MethodHead, r, nil)
	if believed(h, err) {
		return h, err
	}
	g, getErr := a.client.byGet(ctx, r)
	if getErr == nil && !g.dir {
		a.learn(judgeHead(h, err, g))
	}
	return g, getErr
}

// believed reports whether the answer to a HEAD is taken for that of GET on a server where they agreed. That a file has
// no bytes, or no length, is asked for again, and so is what may be a refusal of the method.
func believed(h head, err error) bool {
	status, answered := statusOf(err)
	switch {
	case errors.Is(err, errEncoded):
		return false
	case err != nil && !answered:
		return true
	case err != nil:
		return status == http.StatusNotFound || status == http.StatusGone || busy(status)
	}
	return h.dir || h.size > 0
}

// busy reports whether a status is of the server's moment, and says nothing of the method.
func busy(status int) bool {
	switch status {
	case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable,
		http.StatusGatewayTimeout:
		return true
	}
	return false
}

// judgeHead is what the answer to a HEAD, beside that to a GET which found a file, tells of HEAD; and the difference in
// words where it matters to people.
func judgeHead(h head, err error, g head) (state int32, how string) {
	status, answered := statusOf(err)
	switch {
	case errors.Is(err, errEncoded):
		return headsDiffer, "HEAD is answered as if the file were compressed, which GET does not do"
	case err != nil && (!answered || busy(status)), h.dir:
		return headsUnknown, ""
	case err != nil:
		return headsDiffer, "HEAD is answered " + http.StatusText(status)
	case h.size < 0 && g.size > 0:
		return headsDiffer, ""
	case h.size < 0:
		return headsUnknown, ""
	case h.size != g.size:
		return headsDiffer, "HEAD tells another size than GET"
	case h.version(trustAll) != g.version(trustAll), !h.modTime.Equal(g.modTime):
		// Or they were answered by two servers of one name, which people hear of where it matters.
		return headsDiffer, ""
	case h.size > 0:
		return headsAgree, ""
	}
	return headsUnknown, ""
}

// learn remembers what was found for all files of the server.
func (a *heads) learn(state int32, how string) {
	if state == headsUnknown {
		return
	}
	a.state.Store(state)
	if how != "" {
		a.notes.tell("head", how+", so that files are described by a GET of their first byte")
	}
}
