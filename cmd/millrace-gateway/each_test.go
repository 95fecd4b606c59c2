package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"millrace.io/millrace/cmd/commandline"
	"millrace.io/millrace/sanity/forward"
	"millrace.io/millrace/sanity/pace"
)

// freePort returns a port of the loopback that is free now.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// doorOf asks a gateway's health for the state of its source, "" where no gateway answers.
func doorOf(t *testing.T, address, path string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return ""
	}
	defer func() { _ = resp.Body.Close() }()
	said, _ := io.ReadAll(resp.Body)
	return fmt.Sprintf("%d %s", resp.StatusCode, strings.TrimSpace(string(said)))
}

// TestEach adds, changes and takes away gateways of a process that runs: the others serve on, whatever is wrong with
// one.
func TestEach(t *testing.T) {
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/closed/" && r.Header.Get("X-Key") != "right" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		w.Header().Set("Content-Type", "text/html")
		_, _ = io.WriteString(w, `<html><title>Index of /</title><a href="file">file</a></html>`)
	}))
	defer web.Close()
	dir, settings := t.TempDir(), t.TempDir()
	file, keys, options := filepath.Join(dir, "each"), filepath.Join(dir, "keys"), filepath.Join(dir, "options")
	write := func(name, text string) {
		t.Helper()
		// Whole or not at all, as kubelet does.
		if err := os.WriteFile(name+".new", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(name+".new", name); err != nil {
			t.Fatal(err)
		}
	}
	doors := map[string]string{"one": freePort(t), "two": freePort(t), "bad": freePort(t)}
	list := func(name, source string, more ...string) []string {
		return append(append([]string{
			"--listen", "127.0.0.1:0", "--metrics-listen", doors[name], "--bucket", "bucket-" + name, "--keys-file",
			keys, "--start-anyway",
		}, more...), source)
	}
	run := func(lists ...[]string) {
		t.Helper()
		text, err := json.Marshal(append([][]string{}, lists...))
		if err != nil {
			t.Fatal(err)
		}
		write(file, string(text))
	}
	says := func(name, path, want string) {
		t.Helper()
		got := ""
		for end := time.Now().Add(pace.Limit(10 * time.Second)); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
			if got = doorOf(t, doors[name], path); strings.Contains(got, want) && (want != "" || got == "") {
				return
			}
		}
		t.Fatalf("%s of the gateway %s says %q, wanted %q", path, name, got, want)
	}
	run()
	ctx, cancel := context.WithCancel(t.Context())
	door, ended := freePort(t), make(chan error, 1)
	log := commandline.NewLog(io.Discard, "error", "text")
	go func() {
		c := &gatewayConfig{each: file, probes: door, networkDir: settings}
		ended <- serveEach(ctx, c.all(log))
	}()
	doors["all"] = door
	says("all", "/healthz", "200 ok")
	one, two := list("one", web.URL+"/one/"), list("two", web.URL+"/closed/")
	run(one)
	says("one", "/readyz", "200 ok")
	bad := list("bad", "nowhere://")
	run(one, bad, two)
	says("two", "/readyz", "503")
	write(options, "headers = X-Key,right\n")
	run(one, bad, list("two", web.URL+"/closed/", "--options-file", options))
	says("two", "/readyz", "200 ok")
	write(file, "no JSON")
	says("two", "/healthz", "200 ok")
	run(one)
	says("two", "/healthz", "")
	if got := doorOf(t, doors["one"], "/readyz"); !strings.HasPrefix(got, "200") {
		t.Errorf("the first gateway says %q", got)
	}
	if got := doorOf(t, doors["bad"], "/healthz"); got != "" {
		t.Errorf("a gateway with arguments that mean nothing says %q", got)
	}
	// What the operator says of all sources comes to be, and is followed.
	hidden := list("two", "http://data.inner.test/")
	run(one, hidden)
	says("two", "/readyz", "503")
	proxy := httptest.NewServer(
		&forward.Proxy{
			User:     "me",
			Password: "hunter2",
			Names:    map[string]string{"data.inner.test:80": web.Listener.Addr().String()},
		},
	)
	defer proxy.Close()
	write(filepath.Join(settings, "HTTP_PROXY"), strings.Replace(proxy.URL, "://", "://me:hunter2@", 1))
	says("two", "/readyz", "200 ok")
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	says("one", "/healthz", "")
}

// TestEachRefused gives files that are none when the process starts.
func TestEachRefused(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"no JSON": "x", "no list of lists": `["a"]`} {
		file := filepath.Join(dir, "each")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		err := serveEach(t.Context(), &each{file: file, log: commandline.NewLog(io.Discard, "error", "text")})
		if err == nil || !strings.Contains(err.Error(), "is no list of lists of arguments") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := serveEach(t.Context(), &each{file: filepath.Join(dir, "none")}); err == nil {
		t.Error("a file that is not there is no error")
	}
	if _, err := parseGateway([]string{"--each", "f", "https://host/"}); err == nil {
		t.Error("a source beside --each is accepted")
	}
}
