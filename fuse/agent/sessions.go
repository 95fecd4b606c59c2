package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/fuse"
	"millrace.io/millrace/fuse/handover"
)

const (
	// detachGrace is how long a session whose mount is gone gets to end by itself.
	detachGrace = 2 * time.Second
	// closeGrace is how long sessions that start, and caches that close, are waited for at the end.
	closeGrace = 3 * time.Second
	// nameTTLs is how many times Volume.Revalidate a name is believed by the kernel: what is behind it is asked
	// about when it is opened.
	nameTTLs = 10
	// backendGrace is what a request gets beyond Volume.Timeout, after which the cache should have answered from what
	// it has, or failed.
	backendGrace = 5 * time.Second
	// defaultRevalidate and defaultTimeout are what a volume gets that names none.
	defaultRevalidate = time.Minute
	defaultTimeout    = 10 * time.Second
)

// Opener opens the client that a volume shows. resumed says that the volume was served before: then its source is not
// to be asked for anything, because it may be away while what is cached of it is being read.
type Opener func(ctx context.Context, v handover.Volume, resumed bool) (cacheclient.Client, error)

// Sessions are the sessions that this process serves for a holder, and its side of package handover. Volumes that
// read the same source in the same way share one client, and so the memory and the tier behind it.
type Sessions struct {
	open   Opener
	policy handover.Policy
	server *Server
	log    *slog.Logger

	// mu guards sessions, clients and closed, and what the maps hold.
	mu       sync.Mutex
	sessions map[string]*hosted
	clients  map[string]*sharedClient
	// closed says that no session is added any more.
	closed bool
	// ending counts the goroutines that wait for the end of sessions.
	ending sync.WaitGroup
}

// hosted is one session. All but session and client is immutable; those are set when ready is closed, and valid
// where err is nil.
type hosted struct {
	volume  handover.Volume
	ready   chan struct{}
	err     error
	session *fuse.Session
	client  *sharedClient
	// gone is closed when the session has ended and given everything back.
	gone chan struct{}
	// renewed are the secrets that came since the volume was attached, nil where none did; guarded by Sessions.mu.
	renewed map[string]string
}

// sharedClient is a client and how many sessions use it.
type sharedClient struct {
	key string
	// ready is closed when client and err are set.
	ready  chan struct{}
	client cacheclient.Client
	err    error
	// users is guarded by Sessions.mu.
	users int
}

// NewSessions makes the agent's side of handover. What it serves is listed by server.
func NewSessions(open Opener, policy handover.Policy, server *Server, log *slog.Logger) *Sessions {
	return &Sessions{
		open: open, policy: policy, server: server, log: log,
		sessions: make(map[string]*hosted), clients: make(map[string]*sharedClient),
	}
}

// attach serves a volume on the device, by the saved state where there is one, and returns a copy of its state. It
// takes the files. A session that exists with the same description is left as it is.
func (s *Sessions) attach(ctx context.Context, v handover.Volume, device, saved *os.File) (*os.File, error) {
	h, first, err := s.reserve(v, saved != nil)
	if err != nil || !first {
		handover.CloseAll([]*os.File{device, saved})
	}
	if err != nil {
		return nil, err
	}
	if first {
		s.start(ctx, h, device, saved)
	}
	select {
	case <-h.ready:
	case <-ctx.Done():
		return nil, handover.Errorf(handover.CodeUnavailable, "volume %s is still being attached: %w", v.ID, ctx.Err())
	}
	if h.err != nil {
		return nil, h.err
	}
	copied, state, err := h.session.Handles()
	if err != nil {
		return nil, handover.Errorf(handover.CodeNotFound, "volume %s: %w", v.ID, err)
	}
	_ = copied.Close()
	return state, nil
}

// reserve enters a volume into the table; first says that the caller is the one to start it.
func (s *Sessions) reserve(v handover.Volume, resumed bool) (h *hosted, first bool, err error) {
	check := s.policy.Check
	if resumed {
		check = s.policy.CheckResumed
	}
	if err := errors.Join(v.Check(), check(v)); err != nil {
		return nil, false, handover.Errorf(handover.CodeInvalid, "%w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, false, handover.Errorf(handover.CodeUnavailable, "the agent is ending")
	}
	if h := s.sessions[v.ID]; h != nil {
		if !same(h.described(), v) {
			return nil, false, handover.Errorf(handover.CodeExists,
				"volume %s is served already, with another description", v.ID)
		}
		return h, false, nil
	}
	h = &hosted{volume: v, ready: make(chan struct{}), gone: make(chan struct{})}
	s.sessions[v.ID] = h
	return h, true, nil
}

// same reports whether two descriptions are equal.
func same(a, b handover.Volume) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && string(x) == string(y)
}

// start makes the session of a volume that was reserved, and tells those that wait for it.
func (s *Sessions) start(ctx context.Context, h *hosted, device, saved *os.File) {
	defer close(h.ready)
	fail := func(err error) {
		h.err = err
		s.mu.Lock()
		delete(s.sessions, h.volume.ID)
		s.mu.Unlock()
		close(h.gone)
	}
	defer func() {
		if h.session == nil && h.err == nil {
			// A panic is on its way to the caller.
			fail(handover.Errorf(handover.CodeInternal, "volume %s could not be attached", h.volume.ID))
		}
	}()
	client, err := s.acquire(ctx, h.volume, saved != nil)
	if err != nil {
		handover.CloseAll([]*os.File{device, saved})
		fail(asHandover(err))
		return
	}
	session, err := fuse.Serve(ctx, config(h.volume, client.client, s.log), device, saved)
	if err != nil {
		s.giveBack(client)
		fail(asHandover(err))
		return
	}
	h.session, h.client = session, client
	err = s.server.Add(Mount{
		Dir: h.volume.Dir, Name: MountName(h.volume.ID), Source: h.volume.Source, Started: time.Now(),
		Client: client.client, Stats: session.Stats, Trace: session.Trace, Slowest: session.Slowest,
		Unmount: func(bool) error { return errNotOurs },
	})
	if err != nil {
		s.log.Warn("the socket does not list a volume", "volume", h.volume, "error", err)
	}
	s.log.Info("serving", "volume", h.volume, "resumed", saved != nil)
	s.ending.Add(1)
	go s.await(h)
}

// errNotOurs answers requests that the agent unmount.
var errNotOurs = errors.New("the mount belongs to the driver: delete the pods that use the volume")

// config is the session's, from the volume's description.
func config(v handover.Volume, client cacheclient.Client, log *slog.Logger) fuse.Config {
	revalidate := v.Revalidate
	if revalidate == 0 {
		revalidate = defaultRevalidate
	}
	timeout := v.Timeout
	if timeout == 0 {
		timeout = defaultTimeout
	}
	return fuse.Config{
		Client: client, Source: v.Source, Dir: v.Dir, NoPassthrough: v.NoPassthrough, Inode32: v.Inode32,
		FileMode: os.FileMode(v.FileMode), DirMode: os.FileMode(v.DirMode), UID: v.UID, GID: v.GID,
		TTL: revalidate, NameTTL: nameTTLs * revalidate, Timeout: timeout + backendGrace, PauseAfterDeaths: true,
		Log: log.With("volume", v.ID),
	}
}

// asHandover gives an error a code.
func asHandover(err error) error {
	var coded *handover.Error
	switch {
	case errors.As(err, &coded):
		return err
	case errors.Is(err, fuse.ErrState):
		return handover.Errorf(handover.CodeState, "%w", err)
	case errors.Is(err, cacheclient.ErrUnavailable), errors.Is(err, context.DeadlineExceeded),
		errors.Is(err, context.Canceled):
		return handover.Errorf(handover.CodeUnavailable, "%w", err)
	case errors.As(err, new(syscall.Errno)) && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR):
		// The node lacks something, such as room or descriptors, and may have it at the next try.
		return handover.Errorf(handover.CodeInternal, "%w", err)
	}
	return handover.Errorf(handover.CodeInvalid, "%w", err)
}

// await gives everything back when the session ends, whatever ended it.
func (s *Sessions) await(h *hosted) {
	defer s.ending.Done()
	if err := h.session.Wait(); err != nil {
		s.log.Error("a session failed", "volume", h.volume, "error", err)
	}
	s.server.Remove(h.volume.Dir)
	s.giveBack(h.client)
	s.mu.Lock()
	delete(s.sessions, h.volume.ID)
	s.mu.Unlock()
	s.log.Info("no longer serving", "volume", h.volume)
	close(h.gone)
}

// clientKey is what volumes that share a client have in common.
func clientKey(v handover.Volume) string {
	v.ID, v.Dir = "", ""
	v.FileMode, v.DirMode, v.UID, v.GID, v.NoPassthrough, v.Inode32 = 0, 0, 0, 0, false, false
	key, err := json.Marshal(v)
	if err != nil {
		return v.ID
	}
	return string(key)
}

// acquire is the client of a volume, opened for the first session that needs it.
func (s *Sessions) acquire(ctx context.Context, v handover.Volume, resumed bool) (*sharedClient, error) {
	key := clientKey(v)
	s.mu.Lock()
	c := s.clients[key]
	first := c == nil
	if first {
		c = &sharedClient{key: key, ready: make(chan struct{})}
		s.clients[key] = c
	}
	c.users++
	s.mu.Unlock()
	if first {
		s.openShared(ctx, c, v, resumed)
	}
	<-c.ready
	if c.err != nil {
		s.giveBack(c)
		return nil, c.err
	}
	return c, nil
}

// openShared opens a client, and tells its waiters. A panic is an error to them all.
func (s *Sessions) openShared(ctx context.Context, c *sharedClient, v handover.Volume, resumed bool) {
	defer close(c.ready)
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("a cache could not be opened for a panic", "volume", v, "panic", p, "stack",
				string(debug.Stack()))
			c.client, c.err = nil, handover.Errorf(handover.CodeInternal, "the agent failed over opening the volume %s",
				v.ID)
		}
	}()
	c.client, c.err = s.open(ctx, v, resumed)
}

// giveBack ends one use of a client, and closes it after the last.
func (s *Sessions) giveBack(c *sharedClient) {
	s.mu.Lock()
	c.users--
	last := c.users == 0
	if (last || c.err != nil) && s.clients[c.key] == c {
		delete(s.clients, c.key)
	}
	s.mu.Unlock()
	if last && c.err == nil {
		if err := c.client.Close(); err != nil {
			s.log.Warn("closing a cache failed", "error", err)
		}
	}
}

// find is a session that serves.
func (s *Sessions) find(id string) (*hosted, error) {
	s.mu.Lock()
	h := s.sessions[id]
	s.mu.Unlock()
	if h == nil {
		return nil, handover.Errorf(handover.CodeNotFound, "volume %s is not served", id)
	}
	select {
	case <-h.ready:
	default:
		return nil, handover.Errorf(handover.CodeUnavailable, "volume %s is being attached", id)
	}
	if h.err != nil {
		return nil, h.err
	}
	return h, nil
}

// list is the ids of the sessions that serve.
func (s *Sessions) list() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	ids := make([]string, 0, len(s.sessions))
	for id, h := range s.sessions {
		select {
		case <-h.ready:
			ids = append(ids, id)
		default:
		}
	}
	return ids
}

// detach returns when the session, whose mount is gone, has ended. One that does not end by itself, because
// a file is still open or a request hangs, is severed.
func (s *Sessions) detach(ctx context.Context, id string) error {
	h, err := s.find(id)
	if err != nil {
		return err
	}
	grace := time.NewTimer(detachGrace)
	defer grace.Stop()
	select {
	case <-h.gone:
		return nil
	case <-grace.C:
	case <-ctx.Done():
	}
	s.log.Warn("a session is severed: its mount is gone, and somebody still uses it", "volume", h.volume)
	if err := h.session.Abort(); err != nil && !errors.Is(err, fuse.ErrHangs) {
		return fmt.Errorf("volume %s: %w", id, err)
	}
	// Its cache may take a moment to close.
	select {
	case <-h.gone:
	case <-time.After(detachGrace):
	}
	return nil
}

// stats tells about one session, from memory.
func (s *Sessions) stats(id string) (handover.Stats, error) {
	h, err := s.find(id)
	if err != nil {
		return handover.Stats{}, err
	}
	capacity, session := h.client.client.Capacity(), h.session.Stats()
	now := ConditionOf(session, capacity, h.client.client.Counters())
	return handover.Stats{
		Capacity: capacity.Quota, Used: capacity.Used, Files: session.Nodes,
		Abnormal: now.Abnormal, Message: now.Message,
	}, nil
}

// Close stops serving and leaves every mount to the next process. It returns when no session is served here any more,
// in bounded time whatever hangs.
func (s *Sessions) Close() {
	s.mu.Lock()
	s.closed = true
	hosts := make([]*hosted, 0, len(s.sessions))
	for _, h := range s.sessions {
		hosts = append(hosts, h)
	}
	s.mu.Unlock()
	var leaving sync.WaitGroup
	for _, h := range hosts {
		leaving.Go(func() {
			if !endsWithin(closeGrace, func() { <-h.ready }) || h.err != nil {
				return
			}
			if err := h.session.Leave(); err != nil {
				s.log.Warn("a session does not stop", "volume", h.volume, "error", err)
			}
		})
	}
	leaving.Wait()
	if !endsWithin(closeGrace, s.ending.Wait) {
		s.log.Warn("a cache does not close, and is left to the end of this process")
	}
}
