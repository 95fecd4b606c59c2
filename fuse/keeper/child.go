package keeper

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"millrace.io/millrace/fuse/handover"
)

// Child is the serving process's side: its way to the keeper, and what an earlier child left with it.
type Child struct {
	conn *net.UnixConn
	// started is the directory in which the command was given.
	started string
	// Device and State are the connection and what a session leaves for the next; nil in the first child.
	Device, State *os.File
}

// Open takes over what the keeper passed; nil where there is no keeper.
func Open() (*Child, error) {
	text := os.Getenv(childVar)
	if text == "" {
		return nil, nil
	}
	parts := strings.SplitN(text, "+", 3)
	if len(parts) != 3 {
		return nil, fmt.Errorf("$%s is %q: it is set by millrace for itself", childVar, text)
	}
	fd, err := strconv.Atoi(parts[0])
	if err != nil || fd < 3 {
		return nil, fmt.Errorf("$%s is %q: it is set by millrace for itself", childVar, text)
	}
	_ = os.Unsetenv(childVar)
	// It was started by a descriptor, and would be listed by that.
	_ = os.WriteFile("/proc/self/comm", []byte(filepath.Base(os.Args[0])), 0)
	k := &Child{started: parts[2]}
	if parts[1] == strconv.Itoa(handedOver) {
		unix.CloseOnExec(fd + 1)
		unix.CloseOnExec(fd + 2)
		k.Device, k.State = os.NewFile(uintptr(fd+1), "/dev/fuse"), os.NewFile(uintptr(fd+2), "state")
	}
	k.conn, err = unixConn(fd)
	return k, err
}

// StartedIn is the directory in which the command was given, "" where this is the process that was.
func (k *Child) StartedIn() string {
	if k == nil {
		return ""
	}
	return k.started
}

// Resumes reports whether another child served the mount before.
func (k *Child) Resumes() bool { return k != nil && k.Device != nil }

// Kept gives the keeper what a successor needs, once the mount answers.
func (k *Child) Kept(device, state *os.File) { k.say(sayKept, device, state) }

// Serving tells the keeper that a successor serves.
func (k *Child) Serving() { k.say(sayServing) }

// Ended tells the keeper that the exit that follows is meant.
func (k *Child) Ended() { k.say(sayEnded) }

// say tells the keeper something. A keeper that has gone is no reason to end.
func (k *Child) say(what byte, files ...*os.File) {
	if k == nil {
		return
	}
	_ = k.conn.SetWriteDeadline(time.Now().Add(time.Second))
	_, _, _ = k.conn.WriteMsgUnix([]byte{what}, handover.Rights(files), nil)
}
