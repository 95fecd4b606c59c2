package agent

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

const (
	// usersPatience bounds a scan of /proc: a sentence that names fewer users is
	// better than one that comes late.
	usersPatience = time.Second
	// mapsMax bounds the lines read of one process's mappings.
	mapsMax = 65536
)

// User is a process that keeps a mount busy.
type User struct {
	PID  int
	Name string
}

// Users finds at most limit processes, this one excepted, that have a file below dir open,
// mapped, running, or as their working or root directory. It reads links in /proc only: no
// request goes to the file system on dir, so that a mount which does not answer cannot
// stop it. Processes that this user may not look into are not seen.
func Users(dir string, limit int) []User {
	end := time.Now().Add(usersPatience)
	procs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil
	}
	var users []User
	for _, proc := range procs {
		pid, err := strconv.Atoi(filepath.Base(proc))
		if err != nil || pid == os.Getpid() {
			continue
		}
		if uses(proc, dir) {
			users = append(users, User{pid, processName(proc)})
		}
		if len(users) >= limit || time.Now().After(end) {
			break
		}
	}
	return users
}

// uses reports whether the process described by proc, /proc/PID, holds something of dir.
func uses(proc, dir string) bool {
	for _, link := range []string{"cwd", "root", "exe"} {
		if target, err := os.Readlink(filepath.Join(proc, link)); err == nil && Within(dir, target) {
			return true
		}
	}
	fds, err := os.Open(filepath.Join(proc, "fd"))
	if err != nil {
		return false
	}
	defer func() { _ = fds.Close() }()
	names, _ := fds.Readdirnames(-1)
	for _, name := range names {
		if target, err := os.Readlink(filepath.Join(proc, "fd", name)); err == nil && Within(dir, target) {
			return true
		}
	}
	return maps(proc, dir)
}

// maps reports whether the process has a file below dir mapped: a mapping keeps a mount busy
// after the file's descriptor is closed.
func maps(proc, dir string) bool {
	f, err := os.Open(filepath.Join(proc, "maps"))
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }()
	lines := bufio.NewScanner(f)
	for n := 0; n < mapsMax && lines.Scan(); n++ {
		// proc_pid_maps(5): address perms offset dev inode pathname
		if i := strings.IndexByte(lines.Text(), '/'); i >= 0 && Within(dir, lines.Text()[i:]) {
			return true
		}
	}
	return false
}

func processName(proc string) string {
	comm, err := os.ReadFile(filepath.Join(proc, "comm"))
	if err != nil {
		return "?"
	}
	return strings.TrimSpace(string(comm))
}

// BusySentence says that dir is in use, and by whom as far as users tells.
func BusySentence(dir string, users []User) string {
	if len(users) == 0 {
		return dir + " is in use"
	}
	names := make([]string, 0, len(users))
	for _, u := range users {
		names = append(names, fmt.Sprintf("%d %s", u.PID, u.Name))
	}
	return dir + " is in use by " + strings.Join(names, ", ")
}
