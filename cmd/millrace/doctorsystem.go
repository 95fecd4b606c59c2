package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"millrace.io/millrace/cmd/commandline"
	"millrace.io/millrace/fuse/mountpoint"
)

const (
	// wantedFiles is the number of descriptors that a busy agent with many cached files may need.
	wantedFiles = 65536
	// wantedPages is the size in pages of the largest READ that is asked for.
	wantedPages = 256
	// smallTier is the free space in bytes below which a tier is of little use.
	smallTier = 256 << 20
)

// checkSystem checks the kernel and what this process may do.
func checkSystem() []finding {
	status, _ := os.ReadFile("/proc/self/status")
	admin := mountpoint.HasSysAdmin()
	return []finding{
		kernelFinding(kernelRelease()),
		deviceFinding(openFuse()),
		fusermountFinding(admin, findFusermount()),
		adminFinding(admin),
		confinementFinding(admin, statusField(status, "Seccomp"), statusField(status, "NoNewPrivs"), probeMount()),
		filesFinding(openFilesLimit()),
		pagesFinding(readNumber("/proc/sys/fs/fuse/max_pages_limit")),
		controlFinding(isFusectl()),
		updatedbFinding(os.ReadFile("/etc/updatedb.conf")),
	}
}

// kernelRelease is the release of the kernel (uname(2)).
func kernelRelease() string {
	var name unix.Utsname
	_ = unix.Uname(&name)
	return unix.ByteSliceToString(name.Release[:])
}

// kernelFinding judges the release: FUSE 7.28 came with Linux 4.20, passthrough and FUSE_NOTIFY_RESEND with 6.9.
func kernelFinding(release string) finding {
	const check, mend = "kernel", "boot Linux 6.9 or later"
	var major, minor int
	if _, err := fmt.Sscanf(release, "%d.%d", &major, &minor); err != nil {
		return warn(check, "uname -r", "the release %q cannot be understood", release)
	}
	switch v := major*1000 + minor; {
	case v < 4020:
		return bad(check, mend, "Linux %s is too old: FUSE 7.28 or later is needed (Linux 4.20)", release)
	case v < 6009:
		return warn(check, mend,
			"Linux %s has neither FUSE passthrough nor resend (6.9): cached files are read by copying, and a mount "+
				"does not outlive its process", release)
	}
	return fine(check, "Linux %s has FUSE passthrough and resend", release)
}

// openFuse tries to open the FUSE device.
func openFuse() error {
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err == nil {
		_ = f.Close()
	}
	return err
}

func deviceFinding(err error) finding {
	const check = "/dev/fuse"
	switch {
	case err == nil:
		return fine(check, "can be opened")
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return bad(check, "modprobe fuse",
			"is not there; in a container it must be given to it (docker run --device /dev/fuse)")
	case errors.Is(err, fs.ErrPermission):
		return bad(check, "chmod 0666 /dev/fuse",
			"may not be opened by this user; in a container its device cgroup must allow it (docker run --device "+
				"/dev/fuse)")
	}
	return bad(check, "modprobe fuse", "cannot be opened: %v", err)
}

// findFusermount gives the file that mounts for users, nil where there is none.
func findFusermount() fs.FileInfo {
	for _, name := range []string{"fusermount3", "/usr/bin/fusermount3", "/bin/fusermount3"} {
		if path, err := exec.LookPath(name); err == nil {
			if st, err := os.Stat(path); err == nil {
				return st
			}
		}
	}
	return nil
}

func fusermountFinding(admin bool, st fs.FileInfo) finding {
	const check = "fusermount3"
	switch {
	case admin && st == nil:
		return fine(check, "is not installed, and not needed with CAP_SYS_ADMIN")
	case st == nil:
		return bad(check, "apt-get install fuse3 || dnf install fuse3",
			"is not installed: without CAP_SYS_ADMIN it does the mounting")
	case st.Mode()&fs.ModeSetuid == 0 && !admin:
		return bad(check, "chmod u+s \"$(command -v fusermount3)\"", "is not setuid root, so that it cannot mount")
	}
	return fine(check, "is installed")
}

func adminFinding(admin bool) finding {
	const check = "CAP_SYS_ADMIN"
	if admin {
		return fine(check, "is in effect: passthrough is possible")
	}
	return warn(check, "run as root, or setcap cap_sys_admin+ep \"$(command -v millrace)\"",
		"is missing: cached files are read by copying")
}

// statusField is a field of /proc/PID/status (proc_pid_status(5)), "" where it is missing.
func statusField(status []byte, name string) string {
	for line := range strings.Lines(string(status)) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// probeMount tells what keeps mount(2) from being called at all: the target does not exist, which is the answer
// of a kernel that is reached.
func probeMount() error {
	err := unix.Mount("millrace", filepath.Join("/proc/self", "no such directory"), mountpoint.FSType, 0, "")
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

// confinementFinding judges seccomp (0 none, 1 strict, 2 filter) and no_new_privs (0, 1).
func confinementFinding(admin bool, seccomp, noNewPrivs string, probe error) finding {
	const check = "seccomp"
	switch {
	case admin && probe != nil:
		return bad(check, "give the container a seccomp profile that allows mount and umount2 (docker run "+
			"--security-opt seccomp=unconfined)", "mount(2) is refused: %v", probe)
	case !admin && noNewPrivs == "1":
		return bad(check, "run without no_new_privs (allowPrivilegeEscalation: true, NoNewPrivileges=no)",
			"no_new_privs is set: fusermount3 cannot become root")
	case seccomp == "2":
		return fine(check, "a filter is in force, and mount(2) passes it")
	}
	return fine(check, "neither a filter nor no_new_privs is in the way")
}

// openFilesLimit is the hard limit of descriptors; the soft one is raised to it by Go's runtime.
func openFilesLimit() uint64 {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 0
	}
	return limit.Max
}

func filesFinding(limit uint64) finding {
	const check = "open files"
	if limit < wantedFiles {
		return warn(check, fmt.Sprintf("prlimit --nofile=%d --pid $$ (LimitNOFILE= of a systemd unit)", 16*wantedFiles),
			"at most %d: each cached file that is open takes one, and a busy agent may want %d", limit, wantedFiles)
	}
	return fine(check, "at most %d", limit)
}

// readNumber is the number in a file, -1 where there is none.
func readNumber(path string) int {
	text, err := os.ReadFile(path)
	if err != nil {
		return -1
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return -1
	}
	return n
}

func pagesFinding(limit int) finding {
	const check = "request size"
	if limit >= 0 && limit < wantedPages {
		return warn(check, fmt.Sprintf("sysctl -w fs.fuse.max_pages_limit=%d", wantedPages),
			"fs.fuse.max_pages_limit is %d: reads by copying come in smaller pieces than the %d pages that are best",
			limit, wantedPages)
	}
	if limit < 0 {
		return fine(check, "%d pages, which is what this kernel has", wantedPages)
	}
	return fine(check, "fs.fuse.max_pages_limit is %d", limit)
}

// isFusectl reports whether the control file system is mounted.
func isFusectl() bool {
	m, err := mountpoint.At("/sys/fs/fuse/connections")
	return err == nil && m != nil && m.FsType == "fusectl"
}

func controlFinding(mounted bool) finding {
	const check = "fusectl"
	if !mounted {
		return warn(check, "mount -t fusectl none /sys/fs/fuse/connections",
			"is not mounted: a connection that hangs can only be aborted by root")
	}
	return fine(check, "is mounted")
}

// updatedbFinding looks for our type in PRUNEFS (updatedb.conf(5)): a nightly walk through all that a mount shows asks
// the source for each file.
func updatedbFinding(conf []byte, err error) finding {
	const check = "updatedb"
	if err != nil {
		return fine(check, "is not set up here, and scans no mount")
	}
	for line := range strings.Lines(string(conf)) {
		name, value, ok := strings.Cut(line, "=")
		if !ok || strings.TrimSpace(name) != "PRUNEFS" {
			continue
		}
		types := strings.Fields(strings.ToLower(strings.Trim(strings.TrimSpace(value), `"`)))
		if slices.Contains(types, mountpoint.FSType) {
			return fine(check, "passes over millrace mounts")
		}
		return warn(check, `sed -i 's/^ *PRUNEFS *= *"/&`+mountpoint.FSType+` /' /etc/updatedb.conf`,
			"walks through all that mounts show: PRUNEFS in /etc/updatedb.conf has no %s", mountpoint.FSType)
	}
	return warn(check, `echo 'PRUNEFS = "`+mountpoint.FSType+`"' >> /etc/updatedb.conf`,
		"walks through all that mounts show: /etc/updatedb.conf has no PRUNEFS")
}

// tierState is what the machine tells of a tier directory.
type tierState struct {
	dir string
	// err is why it cannot be used.
	err error
	// memory says that it is on tmpfs; size and free are those of its file system in bytes.
	memory     bool
	size, free int64
}

// checkTier looks at the directory, or where it is still to be made at the one that it will be in.
func checkTier(dir string) finding {
	t := tierState{dir: dir}
	at := dir
	for {
		var st unix.Statfs_t
		err := unix.Statfs(at, &st)
		if errors.Is(err, fs.ErrNotExist) && at != filepath.Dir(at) {
			at = filepath.Dir(at)
			continue
		}
		t.err = err
		t.memory = st.Type == unix.TMPFS_MAGIC || st.Type == unix.RAMFS_MAGIC
		t.size, t.free = int64(st.Blocks)*st.Frsize, int64(st.Bavail)*st.Frsize
		break
	}
	if t.err == nil {
		if t.err = unix.Access(at, unix.W_OK|unix.X_OK); t.err != nil {
			t.err = fmt.Errorf("%s may not be written to: %w", at, t.err)
		}
	}
	return tierFinding(t)
}

func tierFinding(t tierState) finding {
	const check = "tier directory"
	mount := "mount -t tmpfs -o size=2g,mode=0700 tmpfs " + quoted(t.dir)
	switch {
	case t.err != nil:
		return bad(check, "mkdir -p "+quoted(t.dir)+" && chown \"$(id -u)\" "+quoted(t.dir), "%s cannot be used: %v",
			t.dir, t.err)
	case t.free < smallTier:
		return warn(check, mount,
			"%s has only %s of %s free (a container has 64 MiB in /dev/shm unless it is given more)", t.dir,
			commandline.FormatSize(t.free), commandline.FormatSize(t.size))
	case !t.memory:
		return warn(check, mount, "%s is not in memory: cached files are read at the speed of its disk", t.dir)
	}
	return fine(check, "%s is in memory and has %s of %s free", t.dir, commandline.FormatSize(t.free),
		commandline.FormatSize(t.size))
}
