package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime/debug"
	"sync"
	"time"

	"millrace.io/millrace/cacheclient/backoff"
	"millrace.io/millrace/cacheclient/network"
	"millrace.io/millrace/cmd/commandline"
)

const (
	// lookEvery is how often it is looked whether the file of gateways has changed.
	lookEvery = 500 * time.Millisecond
	// mostEach bounds the file of gateways, in bytes.
	mostEach = 1 << 20
)

// each runs a gateway for each list of arguments in a file, and follows the file: what is new begins, and what is not
// there any more ends. A gateway that cannot serve is tried again, and the others do not notice. D-252 says why.
type each struct {
	file, probes string
	// networkDir has the operator's settings, "" for none. Gateways begin anew when they change.
	networkDir string
	log        *slog.Logger
	// serve runs one gateway with those settings until its context ends.
	serve func(ctx context.Context, arguments []string, settings network.Settings) error
	// running are the gateways by their arguments, of serveEach's goroutine only.
	running map[string]*running
}

// running is a gateway that was begun.
type running struct {
	end   context.CancelFunc
	ended chan struct{}
}

// serveEach runs until the context ends.
func serveEach(ctx context.Context, e *each) error {
	e.running = map[string]*running{}
	defer e.keep(nil)
	var door http.Server
	if e.probes != "" {
		l, err := commandline.Listen(ctx, "--metrics-listen", e.probes)
		if err != nil {
			return err
		}
		var open sync.WaitGroup
		defer open.Wait()
		defer func() { _ = door.Close() }()
		open.Go(func() { e.answer(&door, l) })
	}
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	var was wish
	said := ""
	for first := true; ; first = false {
		now, err := e.read()
		if err == nil && (first || now != was) {
			err = e.follow(ctx, now)
			was = now
		}
		switch {
		case err != nil && first:
			return err
		case err != nil && err.Error() != said:
			said = err.Error()
			e.log.Warn("the gateways that there are stay as they are", "error", err)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// answer says that the process serves.
func (e *each) answer(door *http.Server, l net.Listener) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok\n") })
	door.Handler, door.ReadHeaderTimeout = mux, 5*time.Second
	if err := door.Serve(l); err != nil && !errors.Is(err, http.ErrServerClosed) {
		e.log.Error("health is not told any more", "error", err)
	}
}

// wish is what gateways are to be.
type wish struct {
	text     string
	settings network.Settings
}

// read reads the file of gateways, and the operator's settings.
func (e *each) read() (w wish, err error) {
	if e.networkDir != "" {
		if w.settings, err = network.Read(e.networkDir); err != nil {
			return w, err
		}
	}
	f, err := os.Open(e.file)
	if err != nil {
		return w, err
	}
	defer func() { _ = f.Close() }()
	text, err := io.ReadAll(io.LimitReader(f, mostEach+1))
	if err == nil && len(text) > mostEach {
		err = fmt.Errorf("%s is larger than %d bytes", e.file, mostEach)
	}
	w.text = string(text)
	return w, err
}

// follow has the gateways of a wish run, and no others.
func (e *each) follow(ctx context.Context, w wish) error {
	var lists [][]string
	if err := json.Unmarshal([]byte(w.text), &lists); err != nil {
		return fmt.Errorf("%s is no list of lists of arguments: %w", e.file, err)
	}
	wanted := make(map[string][]string, len(lists))
	for _, arguments := range lists {
		wanted[fmt.Sprintf("%q %q", w.settings.Files(), arguments)] = arguments
	}
	// What ends may have the port that another one wants.
	e.keep(wanted)
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(gatewayMemory * int64(max(len(wanted), 1)))
	}
	for key, arguments := range wanted {
		if e.running[key] == nil {
			e.begin(ctx, key, func(ctx context.Context) error { return e.serve(ctx, arguments, w.settings) })
		}
	}
	return nil
}

// keep ends the gateways that are not wanted.
func (e *each) keep(wanted map[string][]string) {
	var ended []*running
	for key, r := range e.running {
		if wanted[key] == nil {
			r.end()
			ended = append(ended, r)
			delete(e.running, key)
		}
	}
	for _, r := range ended {
		<-r.ended
	}
}

// begin runs a gateway until its end is asked for.
func (e *each) begin(ctx context.Context, key string, serve func(context.Context) error) {
	ctx, cancel := context.WithCancel(ctx)
	r := &running{cancel, make(chan struct{})}
	e.running[key] = r
	go func() {
		defer close(r.ended)
		pauses := backoff.Pauses{First: 200 * time.Millisecond, Longest: 10 * time.Second, Factor: 2}
		for {
			err := serve(ctx)
			if ctx.Err() != nil {
				return
			}
			e.log.Error("a gateway does not serve, and is begun again", "error", err)
			timer := time.NewTimer(pauses.Next())
			select {
			case <-timer.C:
			case <-ctx.Done():
				timer.Stop()
				return
			}
		}
	}()
}

// all is what runs the gateways of a file.
func (c *gatewayConfig) all(log *slog.Logger) *each {
	serve := func(ctx context.Context, arguments []string, settings network.Settings) error {
		return serveArguments(ctx, log, arguments, settings)
	}
	return &each{file: c.each, probes: c.probes, networkDir: c.networkDir, log: log, serve: serve}
}

// serveArguments runs the gateway that arguments ask for, as the command does.
func serveArguments(ctx context.Context, log *slog.Logger, arguments []string, settings network.Settings) error {
	f, c := newGateway()
	c.network = settings
	if err := f.ParseFlags(arguments); err != nil {
		return f.FlagErrorFunc()(f.Command, err)
	}
	if err := c.take(f, f.Flags().Args()); err != nil {
		return err
	}
	if c.each != "" {
		return f.Wrong("--each is not for a gateway of a file")
	}
	return c.serve(ctx, log.With("bucket", c.bucket), io.Discard)
}
