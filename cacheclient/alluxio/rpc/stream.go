package rpc

import (
	"context"
	"fmt"
	"time"
)

// drainPatience is how long a stream that we have ended gets to end at the server by itself: a worker logs a
// cancelled one as a failure.
const drainPatience = 200 * time.Millisecond

// opening is the start of a stream that outlives the call that starts it.
type opening struct {
	addr string
	call context.Context
	// life is the stream's, and cancel ends it. Until settled, the end of the call does so, too.
	life   context.Context
	cancel context.CancelFunc
	stop   func() bool
}

func (w *Worker) opening(call context.Context) opening {
	life, cancel := context.WithCancel(context.WithoutCancel(call))
	return opening{addr: w.endpoint.addr, call: call, life: life, cancel: cancel, stop: context.AfterFunc(call, cancel)}
}

// settled ends the start. The stream ends with it if there is an error, or the call has ended meanwhile.
func (o opening) settled(err error) error {
	if inTime := o.stop(); !inTime {
		err = fmt.Errorf("%s: %w", o.addr, o.call.Err())
	}
	if err != nil {
		o.cancel()
	}
	return err
}

// drain receives until the stream's end, which it causes if that takes too long.
func drain(cancel context.CancelFunc, receive func() error) {
	go func() {
		defer cancel()
		patience := time.AfterFunc(drainPatience, cancel)
		defer patience.Stop()
		for err := error(nil); err == nil; {
			err = receive()
		}
	}()
}
