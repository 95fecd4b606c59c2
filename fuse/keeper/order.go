package keeper

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// Environment variables by which the processes of a mount find what they were given. They are millrace's own.
const (
	// orderVar is the keeper's Order, in JSON.
	orderVar = "MILLRACE_KEEP"
	// childVar is, in a child, the number of its socket, how many descriptors follow that, and the directory in which the
	// command was given.
	childVar = "MILLRACE_KEEPER"
	// readyVar is the number of the pipe down which a process in the background says that the mount answers, or why there
	// is none.
	readyVar = "MILLRACE_READY_FD"
)

// Order is what a keeper is to keep.
type Order struct {
	// Dir is the mount point's absolute path.
	Dir string `json:"dir"`
	// Started is the directory in which the command was given, "" if it is gone.
	Started string `json:"started"`
	// LogLevel and LogFormat are how the keeper logs.
	LogLevel  string `json:"logLevel"`
	LogFormat string `json:"logFormat"`
	// Detached says that the keeper's standard error is a log.
	Detached bool `json:"detached"`

	// Args are the command, which the children get too.
	Args []string `json:"-"`
	// Program is what the children run.
	Program *os.File `json:"-"`
	// Ready is the pipe down which a child in the background reports, nil in the foreground.
	Ready *os.File `json:"-"`
}

// programFD is the descriptor of Order.Program in a keeper: above those that its children are given, whose numbers
// begin at 3.
const programFD = 100

// NewOrder makes an order for this process's own program and arguments.
func NewOrder(dir string) (*Order, error) {
	program, err := os.Open("/proc/self/exe")
	if err != nil {
		return nil, fmt.Errorf("the program cannot be opened: %w", err)
	}
	// One that was removed is of no use to anybody.
	started, _ := os.Getwd()
	return &Order{Dir: dir, Started: started, Args: os.Args, Program: program}, nil
}

// Ordered is the order that this process was given, nil if it is not to be a keeper.
func Ordered() (*Order, error) {
	text := os.Getenv(orderVar)
	if text == "" {
		return nil, nil
	}
	o := &Order{Args: os.Args}
	if err := json.Unmarshal([]byte(text), o); err != nil {
		return nil, fmt.Errorf("$%s: %w: it is set by millrace for itself", orderVar, err)
	}
	_ = os.Unsetenv(orderVar)
	unix.CloseOnExec(programFD)
	o.Program = os.NewFile(programFD, "program")
	var err error
	o.Ready, err = ReadyPipe()
	return o, err
}

// ReadyPipe is the pipe down which this process reports, nil where there is none.
func ReadyPipe() (*os.File, error) {
	text := os.Getenv(readyVar)
	if text == "" {
		return nil, nil
	}
	fd, err := strconv.Atoi(text)
	if err != nil || fd < 3 {
		return nil, fmt.Errorf("$%s is %q: it is set by millrace for itself", readyVar, text)
	}
	_ = os.Unsetenv(readyVar)
	unix.CloseOnExec(fd)
	pipe := os.NewFile(uintptr(fd), "ready")
	if pipe == nil {
		return nil, fmt.Errorf("$%s is %d, which is no open file", readyVar, fd)
	}
	return pipe, nil
}

// environment is what a keeper that is to be given the order finds in its environment.
func (o *Order) environment() ([]string, error) {
	text, err := json.Marshal(o)
	return append(os.Environ(), orderVar+"="+string(text)), err
}

// Background is a keeper in a session of its own, to be started. Its standard output and error are the log, and ready
// is the end of a pipe down which comes the report.
func (o *Order) Background(keeper string, log, ready *os.File) (*exec.Cmd, error) {
	o.Detached = true
	env, err := o.environment()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(keeper, o.Args[1:]...) //nolint:noctx,gosec // It is to outlive us, and lies beside us.
	cmd.Args[0] = o.Args[0]
	cmd.Env = append(env, readyVar+"=3")
	cmd.Stdout, cmd.Stderr = log, log
	// A descriptor's place is its number less three, and nil leaves it closed.
	cmd.ExtraFiles = make([]*os.File, programFD-3+1)
	cmd.ExtraFiles[0], cmd.ExtraFiles[programFD-3] = ready, o.Program
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return cmd, nil
}

// Become has this process become the keeper. It returns only an error.
func (o *Order) Become(keeper string) error {
	env, err := o.environment()
	if err != nil {
		return err
	}
	if fd := int(o.Program.Fd()); fd != programFD {
		err = unix.Dup3(fd, programFD, 0)
	} else {
		// It has the place already, where a starter left many descriptors open, and would be closed.
		_, err = unix.FcntlInt(programFD, unix.F_SETFD, 0)
	}
	if err != nil {
		return fmt.Errorf("passing the program on: %w", err)
	}
	return unix.Exec(keeper, o.Args, env)
}

// command is a child, to be started. passed is how many descriptors of the mount follow its socket.
func (o *Order) command(passed int) *exec.Cmd {
	//nolint:noctx,gosec // Its end is waited for; a deadline would end the mount. The program is the one that gave the order.
	cmd := exec.Command("/proc/self/fd/"+strconv.Itoa(int(o.Program.Fd())), o.Args[1:]...)
	cmd.Args[0] = o.Args[0]
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=3+%d+%s", childVar, passed, o.Started))
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	// A process group of its own, so that Ctrl-C reaches it once, by the keeper.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd
}
