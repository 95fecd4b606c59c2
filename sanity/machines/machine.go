package machines

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Machine is one that runs, or has lost its power.
type Machine struct {
	config Config
	env    []string

	// mu serializes orders, the loss of power and its return.
	mu         sync.Mutex
	supervisor *exec.Cmd // nil without power
	stderr     *bytes.Buffer
	orders     io.WriteCloser
	control    net.Conn
	answers    *json.Decoder
	pid        int
}

// bootPatience bounds how long a machine takes to come up, and to end.
const bootPatience = 60 * time.Second

// Start starts a machine, whose services get that environment.
func Start(ctx context.Context, config Config, env []string) (*Machine, error) {
	m := &Machine{config: config, env: append(env, "TMPDIR=/run/tmp")}
	return m, m.Boot(ctx)
}

// Name is its host name.
func (m *Machine) Name() string { return m.config.Name }

// PID is its first process's, 0 without power.
func (m *Machine) PID() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.pid
}

// Boot starts a machine that has no power.
func (m *Machine) Boot(ctx context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.supervisor != nil {
		return fmt.Errorf("%s is up", m.config.Name)
	}
	if err := m.launch(ctx); err != nil {
		return fmt.Errorf("%s: %w", m.config.Name, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = m.control.SetDeadline(time.Now()) })
	defer stop()
	if err := m.control.SetDeadline(time.Now().Add(bootPatience)); err != nil {
		return err
	}
	m.answers = json.NewDecoder(m.control)
	if err := m.answer(); err != nil {
		return errors.Join(err, m.end(""))
	}
	return nil
}

// launch starts the supervisor.
func (m *Machine) launch(ctx context.Context) error {
	config, err := json.Marshal(m.config)
	if err != nil {
		return err
	}
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "control"), os.NewFile(uintptr(pair[1]), "control")
	defer func() { _, _ = ours.Close(), theirs.Close() }()
	if m.control, err = net.FileConn(ours); err != nil {
		return err
	}
	cmd := exec.Command("/proc/self/exe") //nolint:noctx // It cleans up after this process.
	cmd.Args[0] = "supervisor of " + m.config.Name
	cmd.Env = append(os.Environ(), roleVariable+"="+supervisorRole, configVariable+"="+string(config))
	cmd.Dir = "/"
	m.stderr = &bytes.Buffer{}
	cmd.Stderr = m.stderr
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if m.orders, err = cmd.StdinPipe(); err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	m.supervisor = cmd
	// A supervisor that is stuck is killed: what it has made goes with its namespaces.
	ctx, cancel := context.WithTimeout(ctx, bootPatience)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
	defer stop()
	line, _ := bufio.NewReader(out).ReadString('\n')
	if m.pid, err = strconv.Atoi(strings.TrimSpace(line)); err != nil {
		return errors.Join(errors.New("it did not start"), m.end(""))
	}
	return nil
}

// answer waits for the first process's answer.
func (m *Machine) answer() error {
	var a answer
	if err := m.answers.Decode(&a); err != nil {
		return fmt.Errorf("%s does not answer: %w", m.config.Name, err)
	}
	if a.Error != "" {
		return fmt.Errorf("%s: %s", m.config.Name, a.Error)
	}
	return nil
}

func (m *Machine) ask(ctx context.Context, r request) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.supervisor == nil {
		return fmt.Errorf("%s has no power", m.config.Name)
	}
	stop := context.AfterFunc(ctx, func() { _ = m.control.SetDeadline(time.Now()) })
	defer stop()
	if err := m.control.SetDeadline(time.Now().Add(bootPatience)); err != nil {
		return err
	}
	if err := json.NewEncoder(m.control).Encode(r); err != nil {
		return fmt.Errorf("%s: %w", m.config.Name, err)
	}
	return m.answer()
}

// StartService starts a program in the machine; its output goes to Log. One of that name that runs is left alone.
func (m *Machine) StartService(ctx context.Context, service, program string, args ...string) error {
	return m.ask(ctx, request{Service: service, Program: program, Args: args, Env: m.env})
}

// StopService ends a service by a signal, and waits for its end; one that ignores the signal is killed.
func (m *Machine) StopService(ctx context.Context, service string, signal syscall.Signal) error {
	return m.ask(ctx, request{Service: service, Signal: int(signal)})
}

// Log is the file with what a service has written.
func (m *Machine) Log(service string) string {
	return filepath.Join(m.config.Disk, "log", service+".log")
}

// Command is a command that runs in the machine.
func (m *Machine) Command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "nsenter", append([]string{
		"-t", strconv.Itoa(m.PID()), "-m", "-u", "-i", "-n",
		"-p", "-C", "--",
	}, args...)...)
	cmd.Env, cmd.Dir = m.env, "/"
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// InNetwork is a command of this machine's host, with its files and processes, in the machine's network.
func (m *Machine) InNetwork(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "nsenter", append([]string{"-t", strconv.Itoa(m.PID()), "-n", "--"}, args...)...)
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// PowerCut kills all of the machine's processes at once. Its disk stays.
func (m *Machine) PowerCut() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.end(cutOrder)
}

// Remove ends the machine and removes its disk.
func (m *Machine) Remove() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.supervisor == nil {
		return os.RemoveAll(m.config.Disk)
	}
	return m.end("")
}

// end gives the supervisor its last order and waits for it.
func (m *Machine) end(order string) error {
	if m.supervisor == nil {
		return nil
	}
	if order != "" {
		_, _ = io.WriteString(m.orders, order+"\n")
	}
	_ = m.orders.Close()
	ended := make(chan error, 1)
	go func() { ended <- m.supervisor.Wait() }()
	select {
	case err := <-ended:
		_ = m.control.Close()
		m.supervisor, m.pid = nil, 0
		if err != nil {
			return fmt.Errorf("%s: %w: %s", m.config.Name, err, strings.TrimSpace(m.stderr.String()))
		}
		return nil
	case <-time.After(bootPatience):
		return fmt.Errorf("%s: its supervisor does not end", m.config.Name)
	}
}
