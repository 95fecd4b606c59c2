// Package agent lets an engineer on the machine, and the millrace command, ask a
// process that serves mounts what it is doing: HTTP over a unix socket, JSON and
// Prometheus text. There is no TCP listener.
//
// A process has one [Server], which lists the mounts that the process serves. The
// life of a request:
//
//  1. socket.Listen made the socket, 0600 from the first moment that it can be reached by
//     its name.
//  2. A connection is asked for its peer's credentials: the user that owns this process
//     and root may talk to it, others get 403 (peer.go).
//  3. A request with an Origin or a Referer comes from a browser that was led
//     here by a page, and is refused (handlers.go).
//  4. The path picks a handler from one table; the handler finds the mount that a path
//     belongs to, asks its cacheclient or its session, and returns a value or an error, which
//     becomes a status and {"error": sentence} (handlers.go, errors.go). Warming and tracing answer line
//     by line, until the work is done or the client goes (warm.go, trace.go).
//
// The requests and the JSON they take and give are in api.go: they are an ABI that scripts
// with curl depend upon. [Client] speaks it from Go.
//
// Which mounts exist on this machine, and on which sockets they answer, is in the
// [Registry]: one small JSON file a mount in the runtime directory, written by the process that serves
// it, and cleaned by each reader (registry.go).
//
// Guarded by Server.mu: the list of mounts, the socket's name and the pods that have to be restarted. Handlers copy
// what they need and never hold it while they ask a mount.
package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/fuse"
	"millrace.io/millrace/fuse/handover"
)

const (
	// headerTimeout is how long a client may take to send a request's header.
	headerTimeout = 5 * time.Second
	// idleTimeout ends connections that are not used.
	idleTimeout = time.Minute
	// shutdownTimeout is what requests in flight get to end when the server ends.
	shutdownTimeout = 2 * time.Second
)

// Mount is a mount that this process serves.
type Mount struct {
	// Dir is the directory, absolute and without symbolic links.
	Dir string
	// Name labels the mount's metrics; it is short, unique in the process and no path.
	Name string
	// Source is what the mount shows, without secrets.
	Source string
	// Started is when the mount was made.
	Started time.Time
	// Client is where its data comes from.
	Client cacheclient.Client
	// Stats tells what the kernel asked of the session; it answers from memory.
	Stats func() fuse.Stats
	// Trace and Slowest tell of the session's requests, as those of fuse.Session do.
	Trace   func(ctx context.Context, keep func(fuse.Event) bool, into chan<- fuse.Event)
	Slowest func() []fuse.Event
	// Unmount ends the session, as fuse.Session.Unmount does.
	Unmount func(force bool) error
	// Keeper tells what keeps the mount, from memory; nil where that is not known.
	Keeper func() *Keeper
}

// Server answers for the mounts of one process. All methods may be called from many
// goroutines.
type Server struct {
	log *slog.Logger

	// mu guards the rest.
	mu sync.RWMutex
	// mounts are in order of Dir.
	mounts []Mount
	// socket is where Serve answers.
	socket string
	// lost are the pods that have to be restarted.
	lost []handover.LostPod
}

// New makes a server that has no mount yet.
func New(log *slog.Logger) *Server {
	return &Server{log: log}
}

// Add lists a mount. Its Dir and its Name must be new to the server.
func (s *Server) Add(m Mount) error {
	if !filepath.IsAbs(m.Dir) || m.Name == "" {
		return fmt.Errorf("a mount needs an absolute directory and a name, not %q and %q", m.Dir, m.Name)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, other := range s.mounts {
		if other.Dir == m.Dir || other.Name == m.Name {
			return fmt.Errorf("the mount %s on %s is listed already", other.Name, other.Dir)
		}
	}
	s.mounts = append(s.mounts, m)
	slices.SortFunc(s.mounts, func(a, b Mount) int {
		if a.Dir < b.Dir {
			return -1
		}
		return 1
	})
	return nil
}

// Remove takes the mount on dir off the list, where it was listed.
func (s *Server) Remove(dir string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mounts = slices.DeleteFunc(s.mounts, func(m Mount) bool { return m.Dir == dir })
}

// list is a copy of the mounts.
func (s *Server) list() []Mount {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.Clone(s.mounts)
}

// Serve answers on l until ctx ends, and closes l. Requests that are under way then are
// cancelled and get shutdownTimeout to say so. It returns nil when ctx ended it.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	s.mu.Lock()
	s.socket = l.Addr().String()
	s.mu.Unlock()
	srv := &http.Server{
		Handler:           s.handler(),
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ConnContext:       withPeer,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	var watching sync.WaitGroup
	watched, stop := context.WithCancel(ctx)
	watching.Go(func() { s.watch(watched) })
	defer func() {
		stop()
		if !endsWithin(shutdownTimeout, watching.Wait) {
			s.log.Warn("a mount does not tell how it is, and is left behind")
		}
	}()
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(l) }()
	select {
	case err := <-ended:
		return fmt.Errorf("agent socket %s: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	patience, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	if err := srv.Shutdown(patience); err != nil {
		s.log.Debug("requests did not end in time", "error", err)
		_ = srv.Close()
	}
	if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("agent socket %s: %w", l.Addr(), err)
	}
	return nil
}
