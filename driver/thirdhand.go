package driver

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"millrace.io/millrace/fuse/handover"
	"millrace.io/millrace/fuse/keeping"
)

const (
	// keeperTime bounds a request to the keeper, which answers from memory.
	keeperTime = time.Second
	// keeperPatience is how long after the start of this process a keeper that does not answer is waited for, before a
	// mount that no other process has is taken for lost.
	keeperPatience = 5 * time.Second
	// keeperRedial is how long to wait before the keeper is asked for again.
	keeperRedial = 50 * time.Millisecond
	// leaveTime bounds how long this process stays for what the keeper does not have.
	leaveTime = 8 * time.Second
)

// thirdHand is the driver's way to the keeper, which has copies of what custody holds. Without a keeper it does
// nothing.
// D-245 says why.
type thirdHand struct {
	keeper  *keeping.Client // nil where there is none
	custody *custody
	log     *slog.Logger
	// wake has a token when something may not be kept yet.
	wake chan struct{}
	// answered is closed when the keeper has been there once, or was waited for long enough.
	answered chan struct{}
	once     sync.Once

	// mu guards the rest.
	mu sync.Mutex
	// generation counts the keepers that were connected, up says that the last still is.
	generation int
	up         bool
	// refused is what the keeper said last to a put, to log it once.
	refused string
}

func newThirdHand(socket string, c *custody, log *slog.Logger) *thirdHand {
	t := &thirdHand{custody: c, log: log, wake: make(chan struct{}, 1), answered: make(chan struct{})}
	if socket == "" {
		t.settle()
		return t
	}
	t.keeper = keeping.Dial(socket)
	return t
}

// mountName is a name that no mount had before.
func mountName() string { return rand.Text() }

// settle notes that no call needs to wait for the keeper any more.
func (t *thirdHand) settle() { t.once.Do(func() { close(t.answered) }) }

// present is the keeper that is connected now, 0 for none.
func (t *thirdHand) present() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.up {
		return 0
	}
	return t.generation
}

// setUp notes that a keeper is connected, or is not any more.
func (t *thirdHand) setUp(up bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.up = up; up {
		t.generation++
	}
}

// watch stays connected to the keeper until the context ends. Each one that appears gets what is held, after adopt has
// taken from it what an earlier process left there.
func (t *thirdHand) watch(ctx context.Context, adopt func(context.Context)) {
	if t.keeper == nil {
		return
	}
	patience := time.AfterFunc(keeperPatience, t.settle)
	defer patience.Stop()
	pause := time.NewTicker(keeperRedial)
	defer pause.Stop()
	for ctx.Err() == nil {
		var working sync.WaitGroup
		during, stop := context.WithCancel(ctx)
		err := t.keeper.Watch(ctx, func() {
			t.setUp(true)
			t.settle()
			t.log.Info("the keeper is connected")
			working.Go(func() { t.fill(during, adopt) })
		})
		stop()
		t.setUp(false)
		working.Wait()
		if err == nil {
			t.log.Warn("the keeper has gone")
		}
		select {
		case <-pause.C:
		case <-ctx.Done():
		}
	}
}

// fill brings what is held and what the keeper keeps together, again and again while it is there.
func (t *thirdHand) fill(ctx context.Context, adopt func(context.Context)) {
	look := time.NewTicker(roundTime)
	defer look.Stop()
	for ctx.Err() == nil {
		adopt(ctx)
		for _, h := range t.custody.all() {
			t.put(ctx, h)
		}
		select {
		case <-ctx.Done():
		case <-look.C:
		case <-t.wake:
		}
	}
}

// put has the keeper keep what is held of a volume. What fails is tried again.
func (t *thirdHand) put(ctx context.Context, h *held) {
	now := t.present()
	if now == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, keeperTime)
	defer cancel()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.gone || h.kept == now {
		return
	}
	err := t.keeper.Put(ctx, h.volume.ID, h.mount, h.device, h.state)
	if err == nil {
		h.kept = now
	}
	t.tell(err)
}

// tell logs what the keeper says to a put, where it is news.
func (t *thirdHand) tell(err error) {
	said := ""
	if answered(err) {
		said = err.Error()
	}
	t.mu.Lock()
	news := said != t.refused
	t.refused = said
	t.mu.Unlock()
	if news && said != "" {
		t.log.Warn("the keeper does not keep a volume, which is lost if driver and agent end at once", "error", err)
	}
}

// drop has the keeper give a volume up. A keeper that is not there has nothing.
func (t *thirdHand) drop(ctx context.Context, id string) error {
	if t.present() == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, keeperTime)
	defer cancel()
	if err := t.keeper.Drop(ctx, id, ""); err != nil && t.present() != 0 {
		return fmt.Errorf("the keeper: %w", err)
	}
	return nil
}

// get takes what the keeper has of the mount; nothing where it has another one's, or a connection that has ended.
func (t *thirdHand) get(ctx context.Context, id, mount string) (device, state *os.File, err error) {
	ctx, cancel := context.WithTimeout(ctx, keeperTime)
	defer cancel()
	of, device, state, err := t.keeper.Get(ctx, id)
	if handover.CodeOf(err) == handover.CodeNotFound {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	if of != mount || hasEnded(device) {
		handover.CloseAll([]*os.File{device, state})
		return nil, nil, t.keeper.Drop(ctx, id, of)
	}
	return device, state, nil
}

// hasEnded reports whether the connection of a device has ended, by an unmount or an abort. It takes nothing from it.
func hasEnded(device *os.File) bool {
	poll := []unix.PollFd{{Fd: int32(device.Fd()), Events: unix.POLLIN}}
	n, err := unix.Poll(poll, 0)
	return err == nil && n == 1 && poll[0].Revents&unix.POLLERR != 0
}

// await returns when the keeper has been there, or was waited for long enough since this process began.
func (t *thirdHand) await(ctx context.Context) error {
	select {
	case <-t.answered:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for the keeper: %w", ctx.Err())
	}
}

// leave returns when the keeper has all that is held, and stays, or it was waited for long enough.
func (t *thirdHand) leave(ctx context.Context) {
	if t.keeper == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, leaveTime)
	defer cancel()
	for !t.mayLeave(ctx) {
		select {
		case t.wake <- struct{}{}:
		default:
		}
		select {
		case <-time.After(keeperRedial):
		case <-ctx.Done():
			t.log.Warn("the keeper does not have all mounts; they last for as long as the agent does")
			return
		}
	}
}

// mayLeave reports whether nothing is lost when this process ends.
func (t *thirdHand) mayLeave(ctx context.Context) bool {
	now, all := t.present(), t.custody.all()
	for _, h := range all {
		h.mu.Lock()
		kept := h.kept == now
		h.mu.Unlock()
		if now == 0 || !kept {
			return false
		}
	}
	return len(all) == 0 || t.keeper.Leave(ctx) == nil
}
