package fuse

import (
	"errors"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ownNamespace is the number of this process's namespace of process ids, 0 where it is not known.
func ownNamespace() uint64 {
	var st unix.Stat_t
	if err := unix.Stat("/proc/self/ns/pid", &st); err != nil {
		return 0
	}
	return st.Ino
}

// callerDying reports whether the thread is being killed, or gone.
func callerDying(caller uint32) bool {
	if caller == 0 {
		return false
	}
	status, err := os.ReadFile("/proc/" + strconv.FormatUint(uint64(caller), 10) + "/status")
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return true
	}
	return err == nil && isDying(string(status))
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
