package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"time"

	"millrace.io/millrace/sanity/serve"
	"millrace.io/millrace/sanity/session"
)

// serveMode is the first argument of a process that is a web server for a benchmark. It is apart, so
// that its memory is not counted as anybody else's.
const serveMode = "serve"

// serveChild serves a directory until its standard input ends, which it does when the parent is
// gone. Its first line of output has the addresses of the server and of its counters.
func serveChild(args []string) error {
	var opts serve.Options
	fs := flag.NewFlagSet(serveMode, flag.ExitOnError)
	fs.Int64Var(&opts.BytesPerSecond, "total", 0, "bytes a second, all connections together")
	fs.Int64Var(&opts.PerConnBytesPerSecond, "connection", 0, "bytes a second and connection")
	fs.DurationVar(&opts.DelayPerRequest, "delay", 0, "what is waited before each response")
	_ = fs.Parse(args)
	server, err := serve.New(fs.Arg(0), opts)
	if err != nil {
		return err
	}
	defer func() { _ = server.Close() }()
	addr, err := server.Start("127.0.0.1:0")
	if err != nil {
		return err
	}
	counters, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	h := &http.Server{
		ReadHeaderTimeout: 10 * time.Second,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_ = json.NewEncoder(w).Encode(server.Stats())
		}),
	}
	go func() { _ = h.Serve(counters) }()
	defer func() { _ = h.Close() }()
	fmt.Println(addr, counters.Addr())
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// webServer is a server process.
type webServer struct {
	addr     string
	counters string
}

// startServer starts a process that serves the directory with the flags of serveChild.
func startServer(s *session.Session, dir string, flags ...string) (*webServer, error) {
	addrs, err := startChild(s, 2, append(append([]string{serveMode}, flags...), dir)...)
	if err != nil {
		return nil, err
	}
	return &webServer{addr: addrs[0], counters: addrs[1]}, nil
}

// url is the address of a path on the server.
func (w *webServer) url(path string) string {
	return (&url.URL{Scheme: "http", Host: w.addr, Path: "/" + path}).String()
}

// stats reads the server's counters.
func (w *webServer) stats(ctx context.Context) (serve.Stats, error) {
	var st serve.Stats
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+w.counters+"/", http.NoBody)
	if err != nil {
		return st, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return st, err
	}
	defer func() { _ = resp.Body.Close() }()
	return st, json.NewDecoder(resp.Body).Decode(&st)
}

// settled reads the counters once they no longer change: a response that its reader has cut is counted
// when the server has noticed.
func (w *webServer) settled(ctx context.Context) (serve.Stats, error) {
	last, err := w.stats(ctx)
	for range 20 {
		select {
		case <-ctx.Done():
			return last, ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
		next, statsErr := w.stats(ctx)
		if err = statsErr; err != nil || next == last {
			break
		}
		last = next
	}
	return last, err
}
