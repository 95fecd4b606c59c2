package rpc

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"millrace.io/millrace/cacheclient/alluxio/wire"
)

const (
	// probePatience bounds the question whether a master leads.
	probePatience = time.Second
	// outagePatience is how long the absence of a leader is taken for an election. Calls that come later fail at once,
	// so that who can do without Alluxio does so.
	outagePatience = 4 * time.Second
	// newsAge is how long it is believed without asking that there is no leader, once it is taken for an outage.
	newsAge = time.Second
	// searchIdle is how long the search for a leader goes on when nobody wants one. Calls that hang say that they do every
	// longestSuspicion at least.
	searchIdle = longestSuspicion + time.Second
)

// term is the time in which one master leads.
type term struct {
	*Endpoint
	// over is done when another master leads, or the cluster is released.
	over context.Context
	end  context.CancelFunc
}

// search is what is known of who leads. One goroutine for all callers asks the masters while there is no leader, or
// while the one that is known is in doubt; those who wait hear of each outcome by news.
// D-056 says why.
type search struct {
	// leader is the term of the master that is known to lead, nil when none is; last is the one known last.
	leader, last *term
	// asking says that the goroutine runs, waiting how many wait for it, wanted when somebody last did.
	asking  bool
	waiting int
	wanted  time.Time
	// lost is since when there is no leader, zero while there is one and before the first search.
	lost time.Time
	// why is what the masters said last instead of "I lead", and told when.
	why  error
	told time.Time
	// news is closed, and made anew, when any of this changes for those who wait.
	news chan struct{}
	// warned says that the outage was logged.
	warned bool
}

// lead returns the term of the leader, waiting for one until the context ends. A call that comes after outagePatience
// without a leader does not wait: it gets what the masters said last.
func (m *Masters) lead(ctx context.Context) (*term, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.leader != nil {
		return m.leader, nil
	}
	came := time.Now()
	outage := !m.lost.IsZero() && came.Sub(m.lost) > outagePatience
	m.begin()
	if outage && came.Sub(m.told) < newsAge {
		return nil, m.noLeader(ctx, m.why)
	}
	for m.leader == nil {
		if m.life.Err() != nil || ctx.Err() != nil || outage && m.told.After(came) {
			return nil, m.noLeader(ctx, m.why)
		}
		news := m.news
		m.waiting++
		m.mu.Unlock()
		select {
		case <-news:
		case <-ctx.Done():
		}
		m.mu.Lock()
		m.waiting--
	}
	return m.leader, nil
}

// noLeader says why there is none, as far as the masters have told.
func (m *Masters) noLeader(ctx context.Context, why error) error {
	switch {
	case m.life.Err() != nil:
		return errReleased
	case errors.Is(ctx.Err(), context.Canceled) && !errors.Is(context.Cause(ctx), errQuiet):
		return fmt.Errorf("search for the leading master: %w", context.Canceled)
	case why == nil:
		return &Unreachable{Addr: m.addresses(), Why: "did not answer in time"}
	case len(m.addrs) == 1:
		return why
	}
	return &Unreachable{Addr: m.addresses(), Why: "have no master that leads: " + why.Error()}
}

// forget has the next call search for a leader, if the term is still the one that is known.
func (m *Masters) forget(t *term) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.leader == t {
		m.leader, m.lost, m.why = nil, time.Now(), nil
	}
}

// doubt has the masters asked whether another one leads by now than in the term, unless that is known already.
func (m *Masters) doubt(t *term) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.last == t {
		m.begin()
	}
}

// begin has the masters asked, unless they are asked already; mu is held.
func (m *Masters) begin() {
	m.wanted = time.Now()
	if m.asking || m.life.Err() != nil {
		return
	}
	m.asking = true
	if m.leader == nil && m.lost.IsZero() {
		m.lost = m.wanted
	}
	delay := time.Duration(0)
	if m.last != nil && m.leader == nil {
		// All agents lost the leader at the same moment, and an election takes a while anyway.
		delay = rand.N(firstPause) //nolint:gosec // No secret.
	}
	m.work.Go(func() { m.ask(delay) })
}

// tell wakes those who wait; mu is held.
func (m *Masters) tell() {
	close(m.news)
	m.news = make(chan struct{})
}

// answer is what a master said to the question whether it leads.
type answer struct {
	from  *Endpoint
	asked time.Time
	// err is nil where it leads.
	err error
}

// ask asks every master whether it leads, each at a pace of its own so that one that hangs holds up nobody, until the
// search is over.
func (m *Masters) ask(delay time.Duration) {
	ctx, cancel := context.WithCancel(m.life)
	var questions sync.WaitGroup
	defer questions.Wait()
	defer cancel()
	answers := make(chan answer)
	if sleep(ctx, delay) {
		for _, e := range m.endpoints {
			questions.Go(func() { e.askAgain(ctx, answers) })
		}
	}
	heard := make(map[*Endpoint]answer)
	for over := false; !over; {
		select {
		case a := <-answers:
			heard[a.from] = a
			over = m.conclude(heard)
		case <-ctx.Done():
			over = true
		}
	}
}

// conclude draws the conclusion from the last answers of the masters, and reports whether the search is over.
func (m *Masters) conclude(heard map[*Endpoint]answer) (over bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := len(heard) == len(m.endpoints)
	found := m.found(heard)
	switch {
	case found != nil && (m.leader == nil || found != m.leader.Endpoint || all):
		m.follow(found)
		m.asking = false
		return true
	case !all:
		return false
	}
	if m.leader != nil {
		// It was in doubt, and does not say that it leads.
		m.leader, m.lost = nil, time.Now()
	}
	m.why, m.told = worst(m.endpoints, heard), time.Now()
	if !m.warned && m.told.Sub(m.lost) > outagePatience {
		m.warned = true
		m.log.Warn("no master leads", "masters", m.addresses(), "since", m.lost, "error", m.why)
	}
	m.tell()
	m.asking = m.waiting > 0 || m.told.Sub(m.wanted) < searchIdle
	return !m.asking
}

// found is the master that says that it leads, another than the one in doubt if there are two: one that was cut off
// from the others may not know yet that it was followed. mu is held.
func (m *Masters) found(heard map[*Endpoint]answer) *Endpoint {
	var doubted *Endpoint
	for e, a := range heard {
		switch {
		case a.err != nil:
		case m.leader != nil && e == m.leader.Endpoint:
			doubted = e
		case m.last != nil && e == m.last.Endpoint && a.asked.Before(m.lost):
			// It was lost since.
		default:
			return e
		}
	}
	return doubted
}

// follow makes a master the leader; mu is held.
func (m *Masters) follow(e *Endpoint) {
	if m.last == nil || m.last.Endpoint != e {
		if m.last != nil {
			m.log.Info("another master leads", "master", e.addr, "before", m.last.addr)
			m.last.end()
		}
		m.last = &term{Endpoint: e}
		m.last.over, m.last.end = context.WithCancel(m.life)
	}
	if m.warned {
		m.log.Info("a master leads again", "master", e.addr)
	}
	m.leader, m.lost, m.why, m.warned = m.last, time.Time{}, nil, false
	m.tell()
}

// addresses are the masters' addresses.
func (m *Masters) addresses() string { return strings.Join(m.addrs, ",") }

// errStandby is what a master says that follows another.
var errStandby = errors.New("is a standby master")

// worst is the answer that tells most, of the first master that gave it: a standby is normal, what is no master is not.
func worst(endpoints []*Endpoint, heard map[*Endpoint]answer) error {
	for _, e := range endpoints {
		if err := heard[e].err; !errors.Is(err, errStandby) {
			return err
		}
	}
	return &Unreachable{Addr: endpoints[0].addr, Why: errStandby.Error()}
}

// askAgain asks the master whether it leads, again and again.
func (e *Endpoint) askAgain(ctx context.Context, answers chan<- answer) {
	for pauses := firstPauses; ; {
		a := answer{from: e, asked: time.Now()}
		a.err = e.leads(ctx)
		select {
		case answers <- a:
		case <-ctx.Done():
			return
		}
		if !sleep(ctx, pauses.Next()) {
			return
		}
	}
}

// leads asks the master whether it leads: only a leader tells the version of a client's service, and the question
// needs no authentication.
func (e *Endpoint) leads(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, probePatience)
	defer cancel()
	conn, err := e.redialled()
	if err != nil {
		return err
	}
	_, err = wire.NewServiceVersionClientServiceClient(conn).GetServiceVersion(ctx, &wire.GetServiceVersionPRequest{
		ServiceType: wire.ServiceType_META_MASTER_CLIENT_SERVICE.Enum(),
	})
	switch status.Code(err) {
	case codes.OK:
		return nil
	case codes.Unavailable:
		if strings.Contains(status.Convert(err).Message(), "standby master") {
			return errStandby
		}
	case codes.NotFound:
		return &Unreachable{
			Addr: e.addr,
			Why:  "is an Alluxio server and no master: it may be the port of a worker, or a master that starts",
		}
	case codes.Unimplemented:
		return &Unreachable{Addr: e.addr, Why: "is no Alluxio master: it does not know getServiceVersion"}
	case codes.DeadlineExceeded:
		return &Unreachable{Addr: e.addr, Why: fmt.Sprintf("did not answer within %v", probePatience)}
	}
	if err = explain(e.addr, err); !unavailable(err) {
		return &Unreachable{Addr: e.addr, Why: "does not say whether it leads: " + err.Error()}
	}
	return err
}
