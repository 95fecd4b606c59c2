package machines

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

// request is what the first process is asked: to start a service, or to stop it by a signal.
type request struct {
	Service string
	// Program and its arguments to start; none stops.
	Program string   `json:",omitempty"`
	Args    []string `json:",omitempty"`
	Env     []string `json:",omitempty"`
	Signal  int      `json:",omitempty"`
}

// answer is empty when all is well.
type answer struct{ Error string }

// stopPatience is how long a service may take to end before it is killed.
const stopPatience = 10 * time.Second

// services are what the first process has started.
type services struct {
	// mu guards the rest.
	mu      sync.Mutex
	running map[string]*process     // by the name of the service
	ended   map[int]chan<- struct{} // by process id; closed by the reaper
}

type process struct {
	pid   int
	ended <-chan struct{}
}

// serve does what is asked on the connection until its other end is closed; that ends the machine.
func serve(control io.ReadWriter) error {
	s := &services{running: map[string]*process{}, ended: map[int]chan<- struct{}{}}
	children := make(chan os.Signal, 16)
	signal.Notify(children, syscall.SIGCHLD)
	go func() {
		for range children {
			s.reap()
		}
	}()
	requests, answers := json.NewDecoder(control), json.NewEncoder(control)
	// The first answer says that the machine is up.
	if err := answers.Encode(answer{}); err != nil {
		return err
	}
	for {
		var r request
		if err := requests.Decode(&r); err != nil {
			return err
		}
		var a answer
		do := s.stop
		if r.Program != "" {
			do = s.start
		}
		if err := do(r); err != nil {
			a.Error = err.Error()
		}
		if err := answers.Encode(a); err != nil {
			return err
		}
	}
}

// reap waits for all children that have ended: services, and the orphans of containers.
func (s *services) reap() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
		if pid <= 0 || err != nil {
			return
		}
		if ended := s.ended[pid]; ended != nil {
			close(ended)
			delete(s.ended, pid)
		}
	}
}

// start starts a service whose output goes to a file of its name in /var/log; one that runs is left alone.
func (s *services) start(r request) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.running[r.Service]; p != nil {
		select {
		case <-p.ended:
		default:
			return nil
		}
	}
	path, err := exec.LookPath(r.Program)
	if err != nil {
		return err
	}
	log, err := os.OpenFile("/var/log/"+r.Service+".log", os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer func() { _ = null.Close() }()
	child, err := os.StartProcess(path, append([]string{r.Program}, r.Args...), &os.ProcAttr{
		Dir: "/", Env: r.Env, Files: []*os.File{null, log, log}, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return err
	}
	ended := make(chan struct{})
	s.ended[child.Pid], s.running[r.Service] = ended, &process{pid: child.Pid, ended: ended}
	// The reaper waits for it.
	return child.Release()
}

// stop ends a service, and waits for it.
func (s *services) stop(r request) error {
	s.mu.Lock()
	p := s.running[r.Service]
	delete(s.running, r.Service)
	s.mu.Unlock()
	if p == nil {
		return nil
	}
	for _, sig := range []syscall.Signal{syscall.Signal(r.Signal), syscall.SIGKILL} {
		if err := syscall.Kill(p.pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
			return err
		}
		select {
		case <-p.ended:
			return nil
		case <-time.After(stopPatience):
		}
	}
	return fmt.Errorf("%s does not end", r.Service)
}
