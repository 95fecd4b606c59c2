package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"millrace.io/millrace/sanity/session"
)

// tierQuota is what each cache may hold: more than the four files of the memory case.
const tierQuota = 6 << 30

// mount is a source that is mounted by one of the systems, with a new and empty cache in memory.
type mount struct {
	dir  string
	tier string
	// took is how long the system took until the mount was there.
	took time.Duration
	// pids are the processes that serve it.
	pids []int
	// close unmounts it and drops its cache.
	close func()
}

// newMount mounts what the server has below path, by millrace (with more flags) or by rclone.
func (b *bench) newMount(system string, from *webServer, path string, flags ...string) (*mount, error) {
	start := b.startMillrace
	if system == rclone {
		start = b.startRclone
	}
	return b.mountBy(system, func(m *mount) (func(), error) { return start(m, from.url(path), flags) })
}

// mountBy makes the directories of a mount, and mounts by start, which returns what unmounts.
func (b *bench) mountBy(system string, start func(m *mount) (stop func(), err error)) (*mount, error) {
	b.made++
	base := filepath.Join(b.work, fmt.Sprintf("%s-%d", system, b.made))
	m := &mount{dir: filepath.Join(base, "mnt"), tier: filepath.Join(base, "tier")}
	for _, dir := range []string{m.dir, m.tier} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
	}
	b.dropCaches()
	stop, err := start(m)
	m.close = func() {
		stop()
		_ = os.RemoveAll(base)
	}
	if err != nil {
		m.close()
		return nil, err
	}
	return m, nil
}

// startMillrace mounts a web server with `millrace mount --background`. Attributes are believed for as long as
// rclone is told to.
func (b *bench) startMillrace(m *mount, source string, flags []string) (stop func(), err error) {
	return b.mountMillrace(m, source, append([]string{
		"--tier-dir", m.tier, "--quota",
		strconv.FormatInt(tierQuota>>20, 10) + "Mi", "--revalidate", "1h",
	}, flags...))
}

// mountMillrace mounts with `millrace mount --background` and the flags.
func (b *bench) mountMillrace(m *mount, source string, flags []string) (stop func(), err error) {
	stop = func() { b.program.Discard(m.dir) }
	if m.took, err = b.program.Mount(source, m.dir, flags...); err != nil {
		return stop, err
	}
	status, err := b.program.Status(m.dir)
	m.pids = []int{status.PID}
	return stop, err
}

// startRclone mounts with `rclone mount`: its whole cache in memory as millrace's is, ranges
// read in parallel and far ahead, and attributes kept as long as they may be.
func (b *bench) startRclone(m *mount, source string, flags []string) (stop func(), err error) {
	args := append([]string{
		"mount", fmt.Sprintf(":http,url='%s':", source), m.dir,
		"--config", "/dev/null", "--log-level", "ERROR", "--read-only",
		"--vfs-cache-mode", "full", "--cache-dir", m.tier, "--vfs-cache-max-size", strconv.Itoa(tierQuota),
		"--vfs-read-ahead", "256M", "--buffer-size", "16M",
		"--vfs-read-chunk-size", "32M", "--vfs-read-chunk-streams", "4",
		"--max-read-ahead", "16M", "--attr-timeout", "1h", "--dir-cache-time", "24h", "--poll-interval", "0",
		"--transfers", "8", "--checkers", "16",
	}, flags...)
	begin := time.Now()
	p, err := b.session.Start(os.Stderr, b.rclone, args...)
	if err != nil {
		return func() {}, err
	}
	stop = func() {
		session.Detach(m.dir)
		p.Kill()
	}
	b.session.Defer(stop)
	m.pids = []int{p.Pid()}
	err = session.WaitMounted(b.session.Context(), m.dir, time.Minute, p.Ended())
	m.took = time.Since(begin)
	return stop, err
}

// dropCaches drops the kernel's page cache, which a native tmpfs does not feel. It takes root.
func (b *bench) dropCaches() {
	if os.Geteuid() != 0 {
		return
	}
	if err := session.DropPageCache(); err != nil && !b.skipped["drop"] {
		b.skipped["drop"] = true
		fmt.Println("    the page cache cannot be dropped:", err)
	}
}
