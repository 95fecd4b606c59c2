package gateway_test

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/gateway"
	"millrace.io/millrace/cacheclient/ufs"
	"millrace.io/millrace/sanity/pace"
)

// verdict is the answer to /source.
func (r *running) verdict(t *testing.T) gateway.Verdict {
	t.Helper()
	resp, err := http.Get(r.admin + "/source")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	var v gateway.Verdict
	if err := json.NewDecoder(resp.Body).Decode(&v); err != nil {
		t.Fatal(err)
	}
	return v
}

// index is a web server whose root shows one file, unless status says otherwise; it counts the requests.
type index struct {
	status atomic.Int64
	asked  atomic.Int64
	token  atomic.Value // what the header X-Token has to be, where it is set
}

func (i *index) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	i.asked.Add(1)
	if want, ok := i.token.Load().(string); ok && r.Header.Get("X-Token") != want {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	if status := int(i.status.Load()); status != 0 {
		w.WriteHeader(status)
		return
	}
	w.Header().Set("Content-Type", "text/html")
	_, _ = io.WriteString(w, `<a href="file">file</a>`)
}

// TestVerdicts tells what is wrong with a source apart.
func TestVerdicts(t *testing.T) {
	secure := httptest.NewTLSServer(&index{})
	defer secure.Close()
	gone := httptest.NewServer(&index{})
	gone.Close()
	answering := func(status int) string {
		i := &index{}
		if status != http.StatusOK {
			i.status.Store(int64(status))
		}
		s := httptest.NewServer(i)
		t.Cleanup(s.Close)
		return s.URL + "/"
	}
	for name, tc := range map[string]struct {
		source string
		state  gateway.State
		says   string
	}{
		"well":           {answering(200), gateway.Reached, ""},
		"no server":      {gone.URL + "/", gateway.Unreached, "refuses the connection"},
		"no such host":   {"http://nowhere.invalid/", gateway.Unreached, "no such host"},
		"its own CA":     {secure.URL + "/", gateway.Untrusted, "name its authority with the option ca_cert"},
		"wants keys":     {answering(401), gateway.Refused, "answers 401"},
		"refuses":        {answering(403), gateway.Refused, "answers 403"},
		"nothing there":  {answering(404), gateway.Failed, "answers 404"},
		"down behind":    {answering(502), gateway.Unreached, "answers 502"},
		"does not serve": {answering(503), gateway.Unreached, "answers 503"},
		"is too busy":    {answering(429), gateway.Unreached, "answers 429"},
		"no TLS": {
			strings.Replace(answering(200), "http:", "https:", 1), gateway.Failed, "does not speak TLS",
		},
		"redirects itself": {answering(301), gateway.Failed, ""},
	} {
		t.Run(name, func(t *testing.T) {
			v := start(t, open(t, tc.source), nil).verdict(t)
			if v.State != tc.state || !strings.Contains(v.Message, tc.says) ||
				(v.Message == "") != (v.State == gateway.Reached) {
				t.Errorf("it is %q: %q", v.State, v.Message)
			}
		})
	}
}

// TestVerdictIsKept asks a source that is well once for many probes, and one that is not again soon; a file that is not
// there says nothing of the source.
func TestVerdictIsKept(t *testing.T) {
	pace.Long(t)
	t.Parallel()
	i := &index{}
	s := httptest.NewServer(i)
	defer s.Close()
	r := start(t, open(t, s.URL+"/"), nil)
	for range 50 {
		if v := r.verdict(t); v.State != gateway.Reached {
			t.Fatalf("%+v", v)
		}
	}
	if n := i.asked.Load(); n != 1 {
		t.Errorf("50 probes cost the source %d requests", n)
	}
	i.status.Store(http.StatusNotFound)
	until := time.Now().Add(pace.Limit(20 * time.Second))
	for r.verdict(t).State == gateway.Reached {
		if _, err := get(t, r.client(r.keys), "absent"); err == nil {
			t.Fatal("what is not there is read")
		}
		if time.Now().After(until) {
			t.Fatal("a source that has nothing any more is still believed to be well")
		}
		time.Sleep(200 * time.Millisecond)
	}
	i.status.Store(0)
	for r.verdict(t).State != gateway.Reached {
		if time.Now().After(until) {
			t.Fatal("it does not become well")
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// TestVerdictOfASilentSource does not wait for longer than its patience.
func TestVerdictOfASilentSource(t *testing.T) {
	silent := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-silent:
		case <-r.Context().Done():
		}
	}))
	defer s.Close()
	defer close(silent)
	v := start(t, open(t, s.URL+"/"), nil).verdict(t)
	if v.State != gateway.Unreached || !strings.Contains(v.Message, "nothing came for 2s") {
		t.Errorf("%+v", v)
	}
}

// renewed is a source behind a file of options.
func renewed(t *testing.T, source, file string) *gateway.Renewed {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	opening := func(ctx context.Context) (ufs.Store, error) {
		return ufs.Open(ctx, source, ufs.Options{File: file, Deferred: true, ResponseTimeout: 2 * time.Second})
	}
	r := gateway.NewRenewed(ctx, source, file, opening, slog.New(slog.DiscardHandler))
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.Watch(ctx, 50*time.Millisecond)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		_ = r.Close()
	})
	return r
}

// become waits for a verdict.
func (r *running) become(t *testing.T, want gateway.State) gateway.Verdict {
	t.Helper()
	until := time.Now().Add(pace.Limit(15 * time.Second))
	for {
		v := r.verdict(t)
		if v.State == want {
			return v
		}
		if time.Now().After(until) {
			t.Fatalf("it is %q, want %q: %s", v.State, want, v.Message)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// TestOptionsAreReadAgain rotates the key of a source, gives options that are none, and mends them, with one process.
func TestOptionsAreReadAgain(t *testing.T) {
	pace.Long(t)
	t.Parallel()
	i := &index{}
	i.token.Store("new")
	s := httptest.NewTLSServer(i)
	defer s.Close()
	dir := t.TempDir()
	file, authority := filepath.Join(dir, "options"), filepath.Join(dir, "ca.pem")
	// As kubelet does: the file is another one from one moment to the next.
	write := func(text string) {
		t.Helper()
		next := filepath.Join(dir, "next")
		if err := errors.Join(os.WriteFile(next, []byte(text), 0o600), os.Rename(next, file)); err != nil {
			t.Fatal(err)
		}
	}
	const options = "ca_cert = %s\nheaders = X-Token,%s\n"
	write(fmt.Sprintf(options, authority, "old"))
	source := renewed(t, s.URL+"/", file)
	var keys gateway.Keys
	r := start(t, source, func(c *gateway.Config) {
		keys = c.Keys
		c.Options = func() string { return source.Options(c.Keys) }
	})
	if v := r.become(t, gateway.Failed); !strings.Contains(v.Message, "ca_cert") {
		t.Errorf("with an authority that is not there: %+v", v)
	}
	if _, err := get(t, r.client(r.keys), "file"); err == nil || is(err, http.StatusNotFound) {
		t.Errorf("a file of a source without its authority: %v", err)
	}
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	if err := os.WriteFile(authority, certificate, 0o600); err != nil {
		t.Fatal(err)
	}
	before := r.become(t, gateway.Refused)
	write(fmt.Sprintf(options, authority, "new"))
	after := r.become(t, gateway.Reached)
	if want := gateway.Fingerprint(keys, fmt.Appendf(nil, options, authority, "new")); after.Options != want ||
		before.Options == want {
		t.Errorf("the options are called %q before and %q after, want %q", before.Options, after.Options, want)
	}
	write("nonsense = 1\n")
	if v := r.become(t, gateway.Failed); !strings.Contains(v.Message, `option "nonsense" is not known`) {
		t.Errorf("%+v", v)
	}
	write(fmt.Sprintf(options, authority, "new"))
	r.become(t, gateway.Reached)
}

// TestRenewedBodies rotates the options in the middle of a body, which comes whole.
func TestRenewedBodies(t *testing.T) {
	pace.Long(t)
	t.Parallel()
	dir := t.TempDir()
	want := randomFile(t, dir, "file", 8<<20)
	s := httptest.NewServer(http.FileServer(http.Dir(dir)))
	defer s.Close()
	file := filepath.Join(t.TempDir(), "options")
	if err := os.WriteFile(file, []byte("headers = X-A,1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	source := renewed(t, s.URL+"/", file)
	info, err := source.Stat(t.Context(), "file")
	if err != nil {
		t.Fatal(err)
	}
	body, err := source.Open(t.Context(), info, 0, info.Size)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = body.Close() }()
	first := make([]byte, 1000)
	if _, err := io.ReadFull(body, first); err != nil {
		t.Fatal(err)
	}
	before := source.Options(gateway.Keys{})
	if err := os.WriteFile(file, []byte("headers = X-A,2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for source.Options(gateway.Keys{}) == before {
		time.Sleep(50 * time.Millisecond)
	}
	rest, err := io.ReadAll(body)
	if err != nil || string(first)+string(rest) != string(want) {
		t.Errorf("%d bytes, %v", len(first)+len(rest), err)
	}
	if err := source.List(t.Context(), "", func(cacheclient.Info) error { return nil }); err != nil {
		t.Error(err)
	}
}
