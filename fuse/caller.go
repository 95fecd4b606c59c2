package fuse

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ownNamespace is the number of this process's namespace of process ids, 0 where it is not known, or where /proc is of
// another one: what that tells of a number is about another process.
func ownNamespace() uint64 {
	if !procIsOwn("/proc") {
		return 0
	}
	var st unix.Stat_t
	if err := unix.Stat("/proc/self/ns/pid", &st); err != nil {
		return 0
	}
	return st.Ino
}

// procIsOwn reports whether a /proc has this process by the number that it has itself.
func procIsOwn(proc string) bool {
	self, err := os.Readlink(filepath.Join(proc, "self"))
	return err == nil && self == strconv.Itoa(os.Getpid())
}

// callerDying reports whether the thread is being killed, or gone. That /proc does not show it says nothing: it may be
// mounted with hidepid.
func callerDying(caller uint32) bool {
	if caller == 0 {
		return false
	}
	if errors.Is(unix.Kill(int(caller), 0), unix.ESRCH) {
		return true
	}
	status, err := readStatus(caller)
	return err == nil && isDying(string(status))
}

// readStatus is the thread's /proc/PID/status; a variable for tests.
var readStatus = func(thread uint32) ([]byte, error) {
	return os.ReadFile("/proc/" + strconv.FormatUint(uint64(thread), 10) + "/status")
}

// harmless are the signals that end no process by themselves.
var harmless = signalSet(unix.SIGCHLD, unix.SIGCONT, unix.SIGSTOP, unix.SIGTSTP,
	unix.SIGTTIN, unix.SIGTTOU, unix.SIGURG, unix.SIGWINCH)

// signalSet is the mask of signals as /proc/PID/status has it.
func signalSet(signals ...unix.Signal) uint64 {
	var set uint64
	for _, s := range signals {
		set |= 1 << (uint(s) - 1)
	}
	return set
}

// isDying reports whether a thread of this /proc/PID/status ends as soon as it leaves the kernel: a signal is pending
// that it neither blocks, ignores nor handles, and that ends it. The kernel marks each thread of a process that is
// being killed by SIGKILL.
func isDying(status string) bool {
	set := make(map[string]uint64)
	for line := range strings.Lines(status) {
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch name {
		case "State":
			if strings.HasPrefix(value, "Z") || strings.HasPrefix(value, "X") {
				return true
			}
		case "SigPnd", "ShdPnd", "SigBlk", "SigIgn", "SigCgt":
			set[name], _ = strconv.ParseUint(value, 16, 64)
		}
	}
	pending := set["SigPnd"] | set["ShdPnd"]
	return pending&^(set["SigBlk"]|set["SigIgn"]|set["SigCgt"]|harmless) != 0
}
