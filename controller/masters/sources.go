package masters

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"path"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"millrace.io/millrace/cacheclient/alluxio/rpc"
	"millrace.io/millrace/cacheclient/gateway"
	"millrace.io/millrace/controller/objects"
)

// SourceVerdict is what came of asking about a source.
type SourceVerdict struct {
	State gateway.State
	// Message says why it is not reached.
	Message string
	// Stale says that the gateway has not read the options yet that it should have.
	Stale bool
}

// Silent says that the gateway itself does not answer.
const Silent gateway.State = "silent"

const (
	// sourcesWell is the pause between two questions while all sources are reached, sourcesIll while one is not, and
	// sourcesAway the longest while a master does not reach one.
	sourcesWell = 8 * time.Second
	sourcesIll  = 3 * time.Second
	sourcesAway = 20 * time.Second
	// askPatience bounds one question. A gateway waits for its source for 10 s at most.
	askPatience = 12 * time.Second
	// mostTold bounds what is read of a gateway's answer, in bytes, and mostSaid what is kept of its message.
	mostTold = 16 << 10
	mostSaid = 500
	// asksOfOne are the questions about one Dataset's sources at a time.
	asksOfOne = 8
)

// newGateways makes a client for gateways, which are in pods of tenants: it follows them nowhere.
func newGateways() *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			DialContext: (&net.Dialer{Timeout: 3 * time.Second}).DialContext, MaxIdleConnsPerHost: 1,
			MaxIdleConns:    mostAsks,
			IdleConnTimeout: 30 * time.Second, MaxResponseHeaderBytes: mostTold,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// turns are when each source is asked next, by where Alluxio has it. They are one goroutine's.
type turns map[string]turn

type turn struct {
	due time.Time
	// pause was waited before it.
	pause time.Duration
}

// watch asks about the sources until the context ends: each at an interval of its own, and all at once after a change.
func (c *Clusters) watch(ctx context.Context, cl *cluster) {
	pause, next := sourcesIll, turns{}
	for n := 0; ; n++ {
		timer := time.NewTimer(pause)
		select {
		case <-cl.look:
			clear(next)
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
		select {
		case c.asks <- struct{}{}:
		case <-ctx.Done():
			return
		}
		pause = c.look(ctx, cl, n, next)
		<-c.asks
	}
}

// lookSoon has the sources be asked at once.
func (cl *cluster) lookSoon() {
	select {
	case cl.look <- struct{}{}:
	default:
	}
}

// look asks about the sources of a Dataset whose turn it is, for the n-th time, notes what came of it, and returns how
// long to wait before the next time.
func (c *Clusters) look(ctx context.Context, cl *cluster, n int, next turns) time.Duration {
	cl.mu.Lock()
	want, state := cl.want, cl.state
	cl.mu.Unlock()
	if want.Idle || want.Empty || !state.Asked || state.Err != "" {
		return sourcesWell
	}
	var due []*objects.Source
	verdicts := make(map[string]SourceVerdict, len(want.Sources))
	host := leadersHost(want, state.Roles)
	for i := range want.Sources {
		source := &want.Sources[i]
		before, known := state.Sources[source.Path]
		if known {
			verdicts[source.Path] = before
		}
		if !time.Now().Before(next[source.Path].due) && (source.Gateway && host != "" || !source.Gateway &&
			state.Mounted) {
			due = append(due, source)
		}
	}
	for path, v := range c.askAll(ctx, due, want, host, state.Mounted, n) {
		verdicts[path] = v
	}
	if ctx.Err() != nil {
		return sourcesWell
	}
	for _, source := range due {
		pause := pauseAfter(source, verdicts[source.Path], next[source.Path].pause)
		next[source.Path] = turn{time.Now().Add(pause), pause}
	}
	cl.mu.Lock()
	changed := reflect.DeepEqual(cl.want.Mounts, want.Mounts) && !reflect.DeepEqual(cl.state.Sources, verdicts)
	if changed {
		cl.state.Sources = verdicts
	}
	cl.mu.Unlock()
	if changed {
		c.Notify(cl.key)
	}
	return next.wait(want.Sources)
}

// wait is how long it is until the next turn of a source.
func (t turns) wait(sources []objects.Source) time.Duration {
	wait := sourcesWell
	for i := range sources {
		next, asked := t[sources[i].Path]
		if !asked {
			// No gateway or master can be asked about it yet.
			next.due = time.Now().Add(sourcesIll)
		}
		wait = min(wait, max(time.Until(next.due), sourcesIll/4))
	}
	return wait
}

// pauseAfter is how long to wait before a source is asked again; before was waited last. A master that waits for a
// source that does not answer goes on with that for minutes, so it is asked less and less.
func pauseAfter(source *objects.Source, v SourceVerdict, before time.Duration) time.Duration {
	switch {
	case v.State == gateway.Reached && !v.Stale:
		return sourcesWell
	case v.State == gateway.Unreached && !source.Gateway:
		return min(max(2*before, sourcesIll), sourcesAway)
	}
	return sourcesIll
}

// askAll asks about sources side by side. One that cannot be asked about now is not among the verdicts.
func (c *Clusters) askAll(
	ctx context.Context, sources []*objects.Source, want Want, host string, mounted bool, n int,
) map[string]SourceVerdict {
	ctx, cancel := context.WithTimeout(ctx, askPatience)
	defer cancel()
	var mu sync.Mutex // guards verdicts
	verdicts := make(map[string]SourceVerdict, len(sources))
	var asking sync.WaitGroup
	places := make(chan struct{}, asksOfOne)
	for _, source := range sources {
		asking.Go(func() {
			places <- struct{}{}
			defer func() { <-places }()
			var v SourceVerdict
			if source.Gateway {
				v = c.askGateway(ctx, source, host)
			}
			if reads := !source.Gateway || v.State == Silent && mounted; reads {
				v = besides(v, c.askMaster(ctx, source, want, n))
			}
			mu.Lock()
			defer mu.Unlock()
			if v.State != "" {
				verdicts[source.Path] = v
			}
		})
	}
	asking.Wait()
	return verdicts
}

// besides is the verdict of the leading master, which may read through a gateway that does not answer us: a firewall
// may be in the way. That it does not read says less than that the gateway is silent.
func besides(told, read SourceVerdict) SourceVerdict {
	if told.State == Silent && read.State != gateway.Reached {
		return told
	}
	return read
}

// leadersHost is the address of the leading master's pod, "" where it is not known.
func leadersHost(want Want, roles map[string]rpc.Role) string {
	for i, address := range want.Masters {
		if roles[address] == rpc.Leading && i < len(want.Hosts) {
			return want.Hosts[i]
		}
	}
	return ""
}

// askGateway asks the gateway beside the leading master, a second time where it has just ended.
func (c *Clusters) askGateway(ctx context.Context, source *objects.Source, host string) SourceVerdict {
	address := net.JoinHostPort(host, strconv.Itoa(int(source.Health)))
	told, err := c.tells(ctx, address)
	if err != nil {
		select {
		case <-time.After(time.Second):
			told, err = c.tells(ctx, address)
		case <-ctx.Done():
		}
	}
	if err != nil {
		return SourceVerdict{State: Silent, Message: plain(err.Error())}
	}
	v := SourceVerdict{State: told.State, Message: plain(told.Message)}
	v.Stale = source.Options != "" && told.Options != "" && told.Options != source.Options
	return v
}

// tells is what a gateway tells. One of a version that tells nothing yet serves, for all that is known.
func (c *Clusters) tells(ctx context.Context, address string) (gateway.Verdict, error) {
	var told gateway.Verdict
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/source", http.NoBody)
	if err != nil {
		return told, err
	}
	response, err := c.gateways.Do(request)
	if err != nil {
		return told, errors.Unwrap(err)
	}
	defer func() { _ = response.Body.Close() }()
	switch response.StatusCode {
	case http.StatusOK:
	case http.StatusNotFound:
		return gateway.Verdict{State: gateway.Reached}, nil
	default:
		return told, fmt.Errorf("%s answers %s", address, response.Status)
	}
	if err := json.NewDecoder(io.LimitReader(response.Body, mostTold)).Decode(&told); err != nil {
		return told, fmt.Errorf("%s tells what is no verdict: %w", address, err)
	}
	known := []gateway.State{gateway.Reached, gateway.Unreached, gateway.Untrusted, gateway.Refused, gateway.Failed}
	if !slices.Contains(known, told.State) {
		return told, fmt.Errorf("%s tells the unknown state %.20q", address, told.State)
	}
	return told, nil
}

// passing is what differs from one try to the next in the same trouble: a condition must not change with it.
var passing = regexp.MustCompile(`[;,]? ?(S3 Extended )?Request ?I[Dd]: [^;,)]*|\[?\b[0-9a-fA-F.:]+\]?:[0-9]+->`)

// plain is what a server said, as a part of one line that says the same while the trouble is the same.
func plain(text string) string {
	text = strings.Join(strings.Fields(strings.ToValidUTF8(text, "?")), " ")
	text = passing.ReplaceAllString(text, "")
	if len(text) > mostSaid {
		text = strings.ToValidUTF8(text[:mostSaid], "") + "..."
	}
	return text
}

const (
	// reachPatience is how long the leading master is given to ask a source, and stillThere how long to say after that
	// that it is there.
	reachPatience = 5 * time.Second
	stillThere    = 2 * time.Second
	// absentNames is how many names of files that no source has are asked for in turn: a master that waits for a source
	// has the name locked.
	absentNames = 32
)

// absent is the n-th of those names.
func absent(n int) string { return fmt.Sprintf(".millrace-asks-whether-you-answer-%d", n%absentNames) }

// askMaster has the leading master ask a source that it reads itself: for a file that is not there, which costs the
// source as little as can be. D-240 says more.
func (c *Clusters) askMaster(ctx context.Context, source *objects.Source, want Want, n int) SourceVerdict {
	conn, err := connect(want, c.Log)
	if err != nil {
		return SourceVerdict{State: gateway.Failed, Message: plain(err.Error())}
	}
	defer conn.Release()
	reach, cancel := context.WithTimeout(ctx, reachPatience)
	defer cancel()
	err = conn.Reach(reach, path.Join(source.Path, absent(n)))
	var silent *rpc.Unreachable
	if !errors.As(err, &silent) {
		return ofMaster(err)
	}
	// It is the master, or the source for which that waits.
	there, cancel := context.WithTimeout(ctx, stillThere)
	defer cancel()
	if _, err := conn.MasterInfo(there); err != nil {
		return SourceVerdict{}
	}
	return SourceVerdict{
		State:   gateway.Unreached,
		Message: "the leading master has no answer from it: it " + plain(silent.Why),
	}
}

// ofMaster tells what an answer of a master says of a source.
func ofMaster(err error) SourceVerdict {
	state := gateway.Failed
	says := func(parts ...string) bool {
		return slices.ContainsFunc(parts, func(part string) bool { return strings.Contains(err.Error(), part) })
	}
	switch {
	case err == nil, errors.Is(err, fs.ErrNotExist):
		return SourceVerdict{State: gateway.Reached}
	case errors.Is(err, fs.ErrPermission), says("Status Code: 403", "InvalidAccessKeyId", "SignatureDoesNotMatch"):
		state = gateway.Refused
	case says("PKIX", "SSLHandshakeException", "SSLPeerUnverifiedException"):
		state = gateway.Untrusted
	case says("Unable to execute HTTP request", "UnknownHostException", "Connection refused", "timed out",
		"NoRouteToHost"):
		state = gateway.Unreached
	}
	return SourceVerdict{State: state, Message: plain(err.Error())}
}
