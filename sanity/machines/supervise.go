package machines

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// cutOrder is what a supervisor hears on its standard input to end the machine and keep its disk. Anything else, and
// the end of the input, removes the disk too.
const cutOrder = "cut"

// controlFD is the descriptor of the connection on which the first process is told what to do.
const controlFD = 3

// supervise runs a machine until it is told to end it, or no process is left to tell.
func supervise(c Config) error {
	// What a terminal sends is for the program that started us, and its end is what we wait for.
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	groups, err := hierarchies()
	if err != nil {
		return err
	}
	for _, h := range groups {
		if err = h.enter(c.Cgroup, c.Name); err != nil {
			err = fmt.Errorf("cgroup: %w", err)
			break
		}
	}
	keep := false
	if err == nil {
		keep, err = run(c)
	}
	for _, h := range groups {
		err = errors.Join(err, h.leave(c.Cgroup, c.Name))
	}
	if !keep {
		err = errors.Join(err, os.RemoveAll(c.Disk))
	}
	return err
}

// run runs the first process until an order comes. It reports whether the disk is to be kept.
func run(c Config) (keep bool, err error) {
	first, died, err := startFirst()
	if err != nil {
		return false, err
	}
	order := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(os.Stdin).ReadString('\n')
		order <- strings.TrimSpace(line)
	}()
	if err = plugIn(c, first.Pid); err == nil {
		fmt.Println(first.Pid)
		select {
		case err = <-died:
			return false, fmt.Errorf("its first process ended: %w", err)
		case o := <-order:
			keep = o == cutOrder
		}
	}
	_ = first.Kill()
	select {
	case <-died: //nolint:errcheck // It was killed.
		return keep, err
	case <-time.After(30 * time.Second):
		return keep, errors.Join(err, errors.New("its processes do not end"))
	}
}

// startFirst starts this program as the first process of new namespaces. The kernel kills it when the thread that
// started it ends, so that one waits for it.
func startFirst() (*os.Process, <-chan error, error) {
	cmd := exec.Command("/proc/self/exe") //nolint:noctx // It ends with this process, and by order.
	cmd.Args[0] = "machine"
	cmd.Env = append(os.Environ(), roleVariable+"="+firstRole)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	control := os.NewFile(controlFD, "control")
	cmd.ExtraFiles = []*os.File{control}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC | syscall.CLONE_NEWNET |
			syscall.CLONE_NEWPID | syscall.CLONE_NEWCGROUP,
		Pdeathsig: syscall.SIGKILL,
		Setsid:    true,
	}
	started, died := make(chan error, 1), make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		err := cmd.Start()
		_ = control.Close()
		started <- err
		if err == nil {
			died <- cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return nil, nil, err
	}
	return cmd.Process, died, nil
}
