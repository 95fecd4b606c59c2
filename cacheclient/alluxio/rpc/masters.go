package rpc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"millrace.io/millrace/cacheclient/alluxio/wire"
)

const (
	// probePatience bounds the question whether a master leads.
	probePatience = time.Second
	// firstPause and longestPause bound the pause between two rounds of that question. Each is cut by a
	// random part, so that ten thousand agents that lost their leader at once do not ask at once.
	firstPause   = 100 * time.Millisecond
	longestPause = 600 * time.Millisecond
	// suspectAfter is how long a call may go without an answer before the masters are asked beside it whether
	// another leads by now.
	suspectAfter = 1500 * time.Millisecond
	// callPatience bounds a call whose context has no deadline.
	callPatience = 30 * time.Second
)

// Masters are the masters of a cluster, of which one leads.
type Masters struct {
	addrs     []string
	endpoints []*Endpoint
	log       *slog.Logger

	// life ends with the cluster, and with it every search.
	life context.Context
	end  context.CancelFunc

	// mu guards the rest.
	mu sync.Mutex
	// leader is the master that answered last that it leads, nil when it is not known.
	leader *Endpoint
	// probe is the search under way, nil when there is none.
	probe *probe
	// last is the leader that was logged last.
	last *Endpoint
}

// probe is one search for the leader, for all who wait for it.
type probe struct {
	done chan struct{}
	// leader and err are valid when done is closed.
	leader *Endpoint
	err    error
}

func newMasters(addrs []string, s Security, log *slog.Logger) (*Masters, error) {
	m := &Masters{addrs: addrs, log: log}
	m.life, m.end = context.WithCancel(context.Background())
	for _, addr := range addrs {
		e, err := newEndpoint(addr, s)
		if err != nil {
			m.close()
			return nil, err
		}
		m.endpoints = append(m.endpoints, e)
	}
	return m, nil
}

func (m *Masters) close() {
	m.end()
	for _, e := range m.endpoints {
		e.Close()
	}
}

// Leader is the address of the leading master.
func (m *Masters) Leader(ctx context.Context) (string, error) {
	e, err := m.lead(ctx)
	if err != nil {
		return "", err
	}
	return e.addr, nil
}

// lead returns the leader, searching for one until the context ends.
func (m *Masters) lead(ctx context.Context) (*Endpoint, error) {
	var last error
	for pause := firstPause; ; pause = min(pause*3/2, longestPause) {
		m.mu.Lock()
		if m.leader != nil {
			defer m.mu.Unlock()
			return m.leader, nil
		}
		p := m.search()
		m.mu.Unlock()
		select {
		case <-p.done:
		case <-ctx.Done():
			return nil, m.noLeader(ctx, last)
		}
		if p.leader != nil {
			return p.leader, nil
		}
		last = p.err
		if m.life.Err() != nil {
			return nil, errClosedEndpoint
		}
		if !sleep(ctx, pause-rand.N(pause/2)) {
			return nil, m.noLeader(ctx, last)
		}
	}
}

// noLeader says why there is none.
func (m *Masters) noLeader(ctx context.Context, last error) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return fmt.Errorf("search for the leading master: %w", context.Canceled)
	}
	why := "has no master that says that it leads"
	if last != nil {
		why += ": " + last.Error()
	}
	return &Unreachable{Addr: strings.Join(m.addrs, ","), Why: why}
}

// search returns the round of questions that is under way, after beginning one; mu is held.
func (m *Masters) search() *probe {
	if m.probe != nil {
		return m.probe
	}
	p := &probe{done: make(chan struct{})}
	m.probe = p
	go m.find(p)
	return p
}

// find asks once who leads, and tells those who wait for p. It ends within probePatience, or with the cluster.
func (m *Masters) find(p *probe) {
	p.leader, p.err = m.ask()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.probe = nil
	if p.leader != nil {
		m.leader = p.leader
		if m.last != nil && m.last != p.leader {
			m.log.Info("another master leads", "master", p.leader.addr, "before", m.last.addr)
		}
		m.last = p.leader
	}
	close(p.done)
}

// ask asks all masters at once whether they lead; the first that does wins.
func (m *Masters) ask() (*Endpoint, error) {
	ctx, cancel := context.WithTimeout(m.life, probePatience)
	defer cancel()
	type answer struct {
		e   *Endpoint
		err error
	}
	answers := make(chan answer, len(m.endpoints))
	for _, e := range m.endpoints {
		go func() { answers <- answer{e, e.leads(ctx)} }()
	}
	var errs []error
	for range m.endpoints {
		a := <-answers
		if a.err == nil {
			return a.e, nil
		}
		errs = append(errs, a.err)
	}
	return nil, worst(errs)
}

// worst is the error that tells most: a standby is normal, what is no master at all is not.
func worst(errs []error) error {
	for _, err := range errs {
		var u *Unreachable
		if !errors.As(err, &u) || !strings.Contains(u.Why, "standby") {
			return err
		}
	}
	return errs[0]
}

// leads asks the master whether it leads: only a leader tells the version of a client's service, and the question
// needs no authentication.
func (e *Endpoint) leads(ctx context.Context) error {
	// A master that was away is not to be waited for longer than it is away.
	e.conn.ResetConnectBackoff()
	_, err := wire.NewServiceVersionClientServiceClient(e.conn).GetServiceVersion(ctx, &wire.GetServiceVersionPRequest{
		ServiceType: wire.ServiceType_META_MASTER_CLIENT_SERVICE.Enum(),
	})
	switch status.Code(err) {
	case codes.Unimplemented:
		return &Unreachable{Addr: e.addr, Why: "is no Alluxio master: it does not know getServiceVersion"}
	case codes.DeadlineExceeded:
		return &Unreachable{Addr: e.addr, Why: fmt.Sprintf("did not answer within %v", probePatience)}
	}
	return explain(e.addr, err)
}

// forget has the next call search for a leader, if e is still the one that is known.
func (m *Masters) forget(e *Endpoint) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.leader == e {
		m.leader = nil
	}
}

// repeat says whether a call that may have been carried out may be made again.
type repeat bool

const (
	safely repeat = true
	once   repeat = false
)

// call makes a call at the leader, and again at the next one while that is safe and the context lasts.
func (m *Masters) call(ctx context.Context, again repeat, f func(context.Context, *grpc.ClientConn) error) error {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, callPatience)
		defer cancel()
	}
	for pause := firstPause; ; pause = min(pause*3/2, longestPause) {
		leader, err := m.lead(ctx)
		if err != nil {
			return err
		}
		err = m.attempt(ctx, leader, f)
		if err == nil {
			return nil
		}
		if !leaderGone(err) {
			return m.judge(ctx, leader, err)
		}
		m.forget(leader)
		if again == once || !sleep(ctx, pause-rand.N(pause/2)) {
			return m.judge(ctx, leader, err)
		}
	}
}

// leaderGone tells whether the error means that the server does not lead, or no longer.
func leaderGone(err error) bool {
	return unavailable(err) || errors.Is(err, errNoSuchCall) || errors.Is(err, errLeaderChanged)
}

// judge makes the deadline of a caller the server's fault: it had the time to answer.
func (m *Masters) judge(ctx context.Context, leader *Endpoint, err error) error {
	switch {
	case errors.Is(err, errNoSuchCall):
		return &Unreachable{Addr: leader.addr, Why: "is no Alluxio master of a version that is supported: " + err.Error()}
	case errors.Is(err, context.DeadlineExceeded) && errors.Is(ctx.Err(), context.DeadlineExceeded):
		return &Unreachable{Addr: leader.addr, Why: "did not answer in time"}
	}
	return err
}

var errLeaderChanged = errors.New("another master leads by now")

// attempt makes the call once. While it waits longer than is usual, the masters are asked whether another one
// leads by now, which ends the attempt: a leader that hangs neither answers nor closes its connections.
func (m *Masters) attempt(ctx context.Context, leader *Endpoint, f func(context.Context, *grpc.ClientConn) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	suspicion := time.AfterFunc(suspectAfter, func() {
		for ctx.Err() == nil && m.life.Err() == nil {
			if other, _ := m.ask(); other != nil && other != leader {
				cancel(errLeaderChanged)
				return
			}
			sleep(ctx, suspectAfter)
		}
	})
	defer suspicion.Stop()
	err := leader.Do(ctx, f)
	if err != nil && errors.Is(context.Cause(ctx), errLeaderChanged) {
		return fmt.Errorf("%s: %w", leader.addr, errLeaderChanged)
	}
	return explain(leader.addr, err)
}

// sleep waits unless the context ends first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
