package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"

	"millrace.io/millrace/sanity/faultproxy"
)

// Role is what a server is to the cluster.
type Role string

// The roles of servers.
const (
	Master Role = "master"
	Worker Role = "worker"
)

// Server is a master or a worker: a Java process that may be killed and started again at the same address.
type Server struct {
	// Name is the role and a number from 1 on: "master-1".
	Name string
	// Role is Master or Worker.
	Role Role
	// Host is the loopback address that clients know the server by. A client is local to a worker when it gives the same
	// one as its own.
	Host string
	// TierDir is the worker's directory in /dev/shm: its blocks are the files alluxioworker/<block id> in there. A
	// master has none.
	TierDir string
	// Log is the path of the file that the server logs to.
	Log string

	cluster        *Cluster
	dir            string // what the server may write, beside its tier
	reserved       *reservation
	bind           string            // where it listens: Host, unless a proxy is there
	rpc, web, raft int               // ports; raft is a master's
	proxy          *faultproxy.Proxy // nil without one

	// mu guards the rest.
	mu     sync.Mutex
	proc   *process // nil before the first start
	killed bool     // the process was ended by Kill
	paused bool
}

// Address is the host:port of the server's gRPC services, or of the proxy before them.
func (s *Server) Address() string { return net.JoinHostPort(s.Host, strconv.Itoa(s.rpc)) }

// Proxy is the proxy between clients and the server's gRPC services, nil unless the cluster was started with
// Config.Proxies.
func (s *Server) Proxy() *faultproxy.Proxy { return s.proxy }

// RPCPort is the port of Address.
func (s *Server) RPCPort() int { return s.rpc }

// Web is the URL of the server's HTTP pages, without a slash at the end. Of the masters only the leader has any.
func (s *Server) Web() string { return "http://" + s.at(s.web) }

// at is the server's own address with one of its ports.
func (s *Server) at(port int) string { return net.JoinHostPort(s.bind, strconv.Itoa(port)) }

func (s *Server) journalDir() string { return filepath.Join(s.dir, "journal") }

// Pid is the id of the process, 0 when it does not run.
func (s *Server) Pid() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc == nil || !s.proc.running() {
		return 0
	}
	return s.proc.pid()
}

// Running reports whether the process is there, paused or not.
func (s *Server) Running() bool { return s.Pid() != 0 }

// RSS is the resident memory of the process in bytes, 0 when it does not run.
func (s *Server) RSS() int64 {
	if pid := s.Pid(); pid != 0 {
		return residentBytes(pid)
	}
	return 0
}

// startProxy starts the proxy where the cluster has them.
func (s *Server) startProxy(ctx context.Context) (err error) {
	if s.cluster.cfg.Proxies {
		s.proxy, err = faultproxy.Start(ctx, s.Address(), s.at(s.rpc))
	}
	return err
}

// Start starts the server, which must not be running, at its address and with its journal or its blocks. It does not
// wait until the server serves: WaitReady does.
func (s *Server) Start() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cluster.stopped() {
		return fmt.Errorf("start %s: the cluster is stopped", s.Name)
	}
	if s.proc != nil && s.proc.running() {
		return fmt.Errorf("start %s: it runs already, as process %d", s.Name, s.proc.pid())
	}
	proc, err := launch(s.command(), s.Log)
	if err != nil {
		return fmt.Errorf("start %s: %w", s.Name, err)
	}
	s.proc, s.killed, s.paused = proc, false, false
	return nil
}

// command starts the server.
func (s *Server) command() *exec.Cmd {
	cfg := s.cluster.cfg
	if s.Role == Master {
		return s.cluster.javaCommand(context.Background(), s.dir, cfg.Optimise, heap(cfg.MasterHeap),
			"alluxio.master.AlluxioMaster")
	}
	return s.cluster.javaCommand(context.Background(), s.dir, cfg.Optimise, heap(cfg.WorkerHeap),
		direct(cfg.WorkerDirect), "alluxio.worker.AlluxioWorker")
}

// Kill ends the server with SIGKILL, paused or not, and returns when it is gone. Its journal and its blocks stay.
func (s *Server) Kill() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc == nil {
		return nil
	}
	s.killed, s.paused = true, false
	if err := s.proc.kill(); err != nil {
		return fmt.Errorf("kill %s: %w", s.Name, err)
	}
	return nil
}

// Pause stops the process with SIGSTOP: it keeps its connections and its port, and answers nothing.
func (s *Server) Pause() error { return s.signal("pause", syscall.SIGSTOP, true) }

// Resume lets a paused process go on.
func (s *Server) Resume() error { return s.signal("resume", syscall.SIGCONT, false) }

func (s *Server) signal(verb string, sig syscall.Signal, paused bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc == nil || !s.proc.running() {
		return fmt.Errorf("%s %s: %w", verb, s.Name, errNotRunning)
	}
	if err := syscall.Kill(s.proc.pid(), sig); err != nil {
		return fmt.Errorf("%s %s: %w", verb, s.Name, err)
	}
	s.paused = paused
	return nil
}

var errNotRunning = errors.New("it does not run")

// awake reports whether the process runs and is not paused.
func (s *Server) awake() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.proc != nil && s.proc.running() && !s.paused
}

// crashed reports whether the process ended and was not killed.
func (s *Server) crashed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.proc != nil && !s.proc.running() && !s.killed
}
