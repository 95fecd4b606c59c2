package driver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"millrace.io/millrace/fuse/handover"
)

const (
	// redial is how long to wait before the agent is asked for again.
	redial = 10 * time.Millisecond
	// attachTime bounds an attach in the background.
	attachTime = 30 * time.Second
	// parallel is how many volumes are worked on at once in the background.
	parallel = 16
)

// custody keeps the descriptors of the volumes' connections, so that they outlive the agent, and gives them to
// the next agent.
// D-034 says why.
type custody struct {
	agent *handover.Client
	log   *slog.Logger
	// wake has a token when there is work for the goroutine that keeps the volumes attached.
	wake chan struct{}

	// mu guards the rest.
	mu   sync.Mutex
	held map[string]*held
	// up says that an agent is connected, since when that changed.
	up    bool
	since time.Time
	// generation counts the agents that were connected.
	generation int
	// changed is closed, and replaced, when up changes.
	changed chan struct{}
}

// held is one volume's connection.
type held struct {
	// volume's secrets change with mu held.
	volume handover.Volume
	// mount is the name of this mount of the volume, which the record has too.
	mount string
	// ctx ends with the volume's release.
	ctx    context.Context
	cancel context.CancelFunc

	// mu guards the rest, and is held while the files are being attached.
	mu     sync.Mutex
	device *os.File
	state  *os.File
	// generation is the agent that took the files last, kept the keeper; 0 for none.
	generation, kept int
	// gone says that the files are closed.
	gone bool
}

func newCustody(agent *handover.Client, log *slog.Logger) *custody {
	return &custody{
		agent: agent, log: log, wake: make(chan struct{}, 1), held: make(map[string]*held),
		since: time.Now(), changed: make(chan struct{}),
	}
}

// add takes the descriptors of a volume's mount that an agent of the given generation serves, none where that is 0.
func (c *custody) add(v handover.Volume, mount string, device, state *os.File, generation int) *held {
	ctx, cancel := context.WithCancel(context.Background())
	h := &held{volume: v, mount: mount, ctx: ctx, cancel: cancel, device: device, state: state, generation: generation}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held[v.ID] = h
	if generation != c.generation {
		// Another agent has been given everything meanwhile, and not this.
		c.poke()
	}
	return h
}

// renew has the next agent be given the volume with its present secrets.
func (c *custody) renew(v handover.Volume) {
	c.mu.Lock()
	h := c.held[v.ID]
	c.mu.Unlock()
	if h == nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.volume.Secrets = v.Secrets
}

// holds reports whether the volume's connection is kept.
func (c *custody) holds(id string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.held[id] != nil
}

// release closes what is held of a volume, nothing where it holds none. An attach of it that is going on is given
// up.
func (c *custody) release(id string) {
	c.mu.Lock()
	h := c.held[id]
	delete(c.held, id)
	c.mu.Unlock()
	if h != nil {
		h.close()
	}
}

func (h *held) close() {
	h.cancel()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.gone = true
	handover.CloseAll([]*os.File{h.device, h.state})
}

// closeAll closes everything. The mounts live on where the agent lives.
func (c *custody) closeAll() {
	for _, h := range c.all() {
		c.release(h.volume.ID)
	}
}

// all is what is held now.
func (c *custody) all() []*held {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make([]*held, 0, len(c.held))
	for _, h := range c.held {
		all = append(all, h)
	}
	return all
}

// poke asks for a round of work.
func (c *custody) poke() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// present reports whether an agent is connected, and since when that is so.
func (c *custody) present() (up bool, since time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.up, c.since
}

// setUp notes that an agent is connected, or is not any more.
func (c *custody) setUp(up bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if up {
		c.generation++
	}
	if up != c.up {
		c.up, c.since = up, time.Now()
		close(c.changed)
		c.changed = make(chan struct{})
	}
}

// await returns the generation of the agent, as soon as one is connected.
func (c *custody) await(ctx context.Context) (int, error) {
	for {
		c.mu.Lock()
		generation, up, changed := c.generation, c.up, c.changed
		c.mu.Unlock()
		if up {
			return generation, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return 0, errAway
		}
	}
}

// errAway is an agent that is not there.
var errAway = errors.New("the agent is not running, or does not listen")

// watch stays connected to the agent, and runs work for as long as one agent is there, until the context ends.
func (c *custody) watch(ctx context.Context, work func(ctx context.Context)) {
	pause := time.NewTicker(redial)
	defer pause.Stop()
	for ctx.Err() == nil {
		var working sync.WaitGroup
		during, stop := context.WithCancel(ctx)
		was := time.Now()
		err := c.agent.Watch(ctx, func() {
			c.setUp(true)
			c.log.Info("the agent is connected")
			working.Go(func() { work(during) })
		})
		stop()
		c.setUp(false)
		working.Wait()
		if err == nil {
			c.log.Warn("the agent has gone", "after", time.Since(was))
		}
		select {
		case <-pause.C:
		case <-ctx.Done():
		}
	}
}

// reattach gives the agent what it does not serve. It returns the ids of the volumes whose connections cannot be
// taken over by this agent, and the other failures.
func (c *custody) reattach(ctx context.Context) (lost []string, err error) {
	// What is held now was attached before now, so that whatever the list lacks was given to another agent.
	all := c.all()
	ids, err := c.list(ctx)
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex // guards lost and failures
	var failures []error
	var group errgroup.Group
	group.SetLimit(parallel)
	for _, h := range all {
		if slices.Contains(ids, h.volume.ID) {
			continue
		}
		group.Go(func() error {
			dead, err := c.attach(ctx, h)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case dead:
				lost = append(lost, h.volume.ID)
			case err != nil:
				failures = append(failures, err)
			}
			return nil
		})
	}
	_ = group.Wait()
	return lost, errors.Join(failures...)
}

// list is the ids of the agent's sessions.
func (c *custody) list(ctx context.Context) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	return c.agent.List(ctx)
}

// attach gives the agent one volume, or tells that its connection is dead, or cannot be taken over.
func (c *custody) attach(ctx context.Context, h *held) (dead bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, attachTime)
	defer cancel()
	defer context.AfterFunc(h.ctx, cancel)()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.gone || ctx.Err() != nil {
		return false, ctx.Err()
	}
	c.mu.Lock()
	generation := c.generation
	c.mu.Unlock()
	// An agent does not lose a session, but one whose connection was aborted has ended. A mount that waits for
	// another agent is not asked, as it would not answer.
	if h.generation == generation && isDead(ctx, h.volume.Dir) {
		return true, nil
	}
	state, err := c.agent.Attach(ctx, h.volume, h.device, h.state)
	switch {
	case h.ctx.Err() != nil:
		handover.CloseAll([]*os.File{state})
		return false, nil
	case handover.CodeOf(err) == handover.CodeState, answered(err) && isDead(ctx, h.volume.Dir):
		return true, nil
	case err != nil && ctx.Err() == nil:
		c.log.Warn("a volume was not taken over by the agent", "volume", h.volume.ID, "error", err)
	}
	if err != nil {
		return false, fmt.Errorf("attaching %s: %w", h.volume.ID, err)
	}
	_ = h.state.Close()
	h.state, h.generation = state, generation
	c.log.Info("a volume was taken over by the agent", "volume", h.volume.ID)
	return false, nil
}
