package masters

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"millrace.io/millrace/cacheclient/alluxio/rpc"
	"millrace.io/millrace/cacheclient/gateway"
	"millrace.io/millrace/controller/objects"
	"millrace.io/millrace/sanity/pace"
)

// TestWhatAMasterSays tells an answer of the source from what keeps it away, in the words of a real Alluxio.
func TestWhatAMasterSays(t *testing.T) {
	for name, tc := range map[string]struct {
		err   error
		state gateway.State
	}{
		"no such file": {fmt.Errorf("a: %w: no such file", fs.ErrNotExist), gateway.Reached},
		"there":        {nil, gateway.Reached},
		"refused":      {fmt.Errorf("a: %w: denied", fs.ErrPermission), gateway.Refused},
		"forbidden": {
			errors.New("a: Internal: Forbidden (Service: Amazon S3; Status Code: 403; Error Code: 403 Forbidden)"),
			gateway.Refused,
		},
		"no authority": {
			errors.New("a: Internal: Unable to execute HTTP request: PKIX path building failed"), gateway.Untrusted,
		},
		"no server": {
			errors.New("a: Unable to execute HTTP request: Connect to 10.0.0.1:1 failed: Connection refused"),
			gateway.Unreached,
		},
		"something else": {errors.New("a: Internal: something else"), gateway.Failed},
	} {
		t.Run(name, func(t *testing.T) {
			if v := ofMaster(tc.err); v.State != tc.state || (v.Message == "") != (tc.state == gateway.Reached) {
				t.Errorf("%+v", v)
			}
		})
	}
}

// TestWhatIsSaidStays takes out what differs from one try to the next.
func TestWhatIsSaidStays(t *testing.T) {
	const amazon = "Forbidden (Service: Amazon S3; Status Code: 403; Error Code: 403 Forbidden"
	for text, want := range map[string]string{
		"read tcp 10.244.0.7:41872->10.0.0.1:443: reset":                         "read tcp 10.0.0.1:443: reset",
		"read tcp [fd00::7]:41872->[fd00::1]:443: reset":                         "read tcp [fd00::1]:443: reset",
		amazon + "; Request ID: 4A5; S3 Extended Request ID: x/y=; Proxy: null)": amazon + "; Proxy: null)",
		"a\n  b": "a b",
		"dial tcp 10.0.0.1:9064: connect: refused": "dial tcp 10.0.0.1:9064: connect: refused",
	} {
		if got := plain(text); got != want {
			t.Errorf("%q becomes %q", text, got)
		}
	}
}

// TestPauses asks often while something may be mended, and less and less where a master waits for the source each time.
func TestPauses(t *testing.T) {
	behind, direct := &objects.Source{Gateway: true}, &objects.Source{}
	for name, tc := range map[string]struct {
		source       *objects.Source
		verdict      SourceVerdict
		before, want time.Duration
	}{
		"well":                   {behind, SourceVerdict{State: gateway.Reached}, sourcesIll, sourcesWell},
		"away":                   {behind, SourceVerdict{State: gateway.Unreached}, sourcesWell, sourcesIll},
		"old options":            {behind, SourceVerdict{State: gateway.Reached, Stale: true}, sourcesWell, sourcesIll},
		"refused by a master":    {direct, SourceVerdict{State: gateway.Refused}, sourcesWell, sourcesIll},
		"a master waits first":   {direct, SourceVerdict{State: gateway.Unreached}, 0, sourcesIll},
		"a master waits again":   {direct, SourceVerdict{State: gateway.Unreached}, sourcesIll, 2 * sourcesIll},
		"a master always waits":  {direct, SourceVerdict{State: gateway.Unreached}, sourcesAway, sourcesAway},
		"nobody could be asked ": {direct, SourceVerdict{}, sourcesWell, sourcesIll},
	} {
		if got := pauseAfter(tc.source, tc.verdict, tc.before); got != tc.want {
			t.Errorf("%s: %v, want %v", name, got, tc.want)
		}
	}
	next := turns{"/a": {due: time.Now().Add(time.Hour)}, "/b": {due: time.Now().Add(sourcesIll)}}
	if got := next.wait([]objects.Source{{Path: "/a"}, {Path: "/b"}}); got > sourcesIll || got < sourcesIll/2 {
		t.Errorf("the next turn is in %v", got)
	}
	if got := next.wait([]objects.Source{{Path: "/a"}}); got != sourcesWell {
		t.Errorf("the next look is in %v", got)
	}
}

// sourceAt is a source whose gateway is at an address.
func sourceAt(t *testing.T, address string) (*objects.Source, string) {
	t.Helper()
	host, port, err := net.SplitHostPort(strings.TrimPrefix(address, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	n, _ := strconv.Atoi(port)
	return &objects.Source{Name: "z", Path: "/z", Gateway: true, Health: int32(n), Options: "new"}, host
}

// TestGatewaysThatLie has a gateway of a tenant's say what none does: it is bounded, followed nowhere, and on one line.
func TestGatewaysThatLie(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter,
		*http.Request,
	) {
		t.Error("a redirect was followed")
	}))
	t.Cleanup(elsewhere.Close)
	for name, tc := range map[string]struct {
		answer func(http.ResponseWriter)
		state  gateway.State
		stale  bool
		says   string
	}{
		"well": {
			says: "", state: gateway.Reached, answer: func(w http.ResponseWriter) {
				fmt.Fprint(w,
					`{"state":"reached","options":"new"}`)
			},
		},
		"old options": {
			state: gateway.Refused, stale: true, says: "no", answer: func(w http.ResponseWriter) {
				fmt.Fprint(w,
					`{"state":"refused","message":"no","options":"old"}`)
			},
		},
		"an older one": {
			state: gateway.Reached, answer: func(w http.ResponseWriter) { w.WriteHeader(http.StatusNotFound) },
		},
		"fails": {
			state: Silent, says: "answers 500",
			answer: func(w http.ResponseWriter) { w.WriteHeader(http.StatusInternalServerError) },
		},
		"unknown": {
			state: Silent, says: `unknown state "great"`, answer: func(w http.ResponseWriter) {
				fmt.Fprint(w,
					`{"state":"great"}`)
			},
		},
		"no JSON": {
			state: Silent, says: "no verdict", answer: func(w http.ResponseWriter) { fmt.Fprint(w, "<html>") },
		},
		"too much": {state: Silent, says: "no verdict", answer: func(w http.ResponseWriter) {
			fmt.Fprintf(w, `{"state":"failed","message":%q}`, strings.Repeat("x", 1<<20))
		}},
		"long": {state: gateway.Failed, says: "x...", answer: func(w http.ResponseWriter) {
			fmt.Fprintf(w, `{"state":"failed","message":%q}`, strings.Repeat("x", 1000))
		}},
		"lines": {
			state: gateway.Failed, says: "a b c", answer: func(w http.ResponseWriter) {
				fmt.Fprint(w,
					`{"state":"failed","message":"a\n b\tc"}`)
			},
		},
		"sends away": {state: Silent, says: "answers 302", answer: func(w http.ResponseWriter) {
			w.Header().Set("Location", elsewhere.URL)
			w.WriteHeader(http.StatusFound)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { tc.answer(w) }))
			defer s.Close()
			source, host := sourceAt(t, s.URL)
			c := &Clusters{gateways: newGateways()}
			v := c.askGateway(t.Context(), source, host)
			if v.State != tc.state || v.Stale != tc.stale || !strings.Contains(v.Message, tc.says) ||
				len(v.Message) > mostSaid+3 {
				t.Errorf("%+v", v)
			}
		})
	}
}

// TestGatewayAway has a gateway that has ended, and one that comes back between the two questions.
func TestGatewayAway(t *testing.T) {
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	_ = l.Close()
	source, host := sourceAt(t, address)
	c := &Clusters{gateways: newGateways()}
	if v := c.askGateway(t.Context(), source, host); v.State != Silent || !strings.Contains(v.Message,
		"connection refused") {
		t.Errorf("%+v", v)
	}
}

// TestGatewayBehindAFirewall is silent to the controller, and read through by the master.
func TestGatewayBehindAFirewall(t *testing.T) {
	silent, well, away := SourceVerdict{State: Silent, Message: "x"}, SourceVerdict{State: gateway.Reached},
		SourceVerdict{State: gateway.Unreached}
	for _, tc := range []struct{ told, read, want SourceVerdict }{
		{silent, well, well}, {silent, away, silent}, {silent, SourceVerdict{}, silent}, {SourceVerdict{}, away, away},
	} {
		if got := besides(tc.told, tc.read); got != tc.want {
			t.Errorf("%+v and %+v: %+v", tc.told, tc.read, got)
		}
	}
}

// TestSilentGatewayDelaysNobody has the gateway of one Dataset never answer: the other's is asked all the same.
func TestSilentGatewayDelaysNobody(t *testing.T) {
	hang := make(chan struct{})
	defer close(hang)
	silent := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-hang:
		case <-r.Context().Done():
		}
	}))
	defer silent.Close()
	well := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w,
			`{"state":"reached"}`)
	}))
	defer well.Close()
	c := &Clusters{Notify: func(types.NamespacedName) {}}
	ctx, cancel := context.WithCancel(t.Context())
	c.mu.Lock()
	c.init()
	c.mu.Unlock()
	clusterOf := func(name, address string) *cluster {
		source, host := sourceAt(t, address)
		source.Options = ""
		return &cluster{
			key: types.NamespacedName{Name: name}, look: make(chan struct{}, 1),
			want:  Want{Masters: []string{"m:1"}, Hosts: []string{host}, Sources: []objects.Source{*source}},
			state: State{Asked: true, Roles: map[string]rpc.Role{"m:1": rpc.Leading}},
		}
	}
	var watching sync.WaitGroup
	defer watching.Wait()
	defer cancel()
	slow, quick := clusterOf("slow", silent.URL), clusterOf("quick", well.URL)
	for _, cl := range []*cluster{slow, quick} {
		cl.lookSoon()
		watching.Go(func() { c.watch(ctx, cl) })
	}
	until := time.Now().Add(pace.Limit(2 * time.Second))
	for {
		quick.mu.Lock()
		v := quick.state.Sources["/z"]
		quick.mu.Unlock()
		if v.State == gateway.Reached {
			break
		}
		if time.Now().After(until) {
			t.Fatalf("the quick one is %+v", v)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// TestLeaders has several masters lead, each for itself.
func TestLeaders(t *testing.T) {
	roles := map[string]rpc.Role{"b:1": rpc.Leading, "a:1": rpc.Leading, "c:1": rpc.Standby}
	if got := leading(roles); len(got) != 2 || got[0] != "a:1" || got[1] != "b:1" {
		t.Errorf("%q", got)
	}
	want := Want{Masters: []string{"c:1", "b:1"}, Hosts: []string{"10.0.0.3", "10.0.0.2"}}
	if got := leadersHost(want, map[string]rpc.Role{"b:1": rpc.Leading, "c:1": rpc.Standby}); got != "10.0.0.2" {
		t.Errorf("the leader is at %q", got)
	}
	if got := leadersHost(want, nil); got != "" {
		t.Errorf("nobody leads, at %q", got)
	}
}
