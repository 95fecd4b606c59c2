package liar

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"millrace.io/millrace/sanity/session"
)

const (
	// mostMemory bounds what a process of the mount takes for itself, in bytes. What it maps of the tier is not of it.
	mostMemory = 400 << 20
	// tierSlack is what a tier may take beyond its quota, in bytes: states of files, and what is on its way.
	tierSlack = 16 << 20
)

// mount is the real program, serving.
type mount struct {
	millrace session.Millrace
	plan     Plan
	source   Source
	// dir is where it is mounted; tier, log and socket are its own.
	dir, tier, log, socket string
	// kills counts the deaths that were ours.
	kills atomic.Int64
}

// newMount makes a mount's directories below the plan's.
func newMount(s *session.Session, bin string, p Plan, source Source) (*mount, error) {
	m := &mount{
		plan: p, source: source, dir: filepath.Join(p.Dir, "mnt"), tier: filepath.Join(p.Dir, "tier"),
		log:    filepath.Join(p.Dir, "log"),
		socket: filepath.Join(p.Dir, "sock"),
	}
	var err error
	if m.millrace, err = session.NewMillrace(s, bin); err != nil {
		return nil, err
	}
	return m, os.Mkdir(m.dir, 0o755)
}

// mount mounts.
func (m *mount) mount() error {
	source, flags := m.source.Mount()
	flags = append(flags, "--timeout", m.plan.Timeout.String(), "--revalidate", m.plan.Revalidate.String(),
		"--connections", strconv.Itoa(m.plan.Connections),
		"--log-file", m.log, "--socket", m.socket)
	if !strings.HasPrefix(source, "alluxio://") {
		flags = append(flags, "--tier-dir", m.tier, "--quota", strconv.FormatInt(m.plan.Quota, 10))
	}
	if !m.plan.Passthrough {
		flags = append(flags, "--no-passthrough")
	}
	_, err := m.millrace.Mount(source, m.dir, flags...)
	return err
}

// unmount unmounts as a user does.
func (m *mount) unmount() error { return m.millrace.Unmount(m.dir) }

// serving is the process of the mount that serves, which is the keeper's child; 0 where there is none.
func (m *mount) serving() int {
	pids := session.PidsWithArgument(m.dir)
	for _, pid := range pids {
		parent := parentOf(pid)
		for _, other := range pids {
			if other == parent {
				return pid
			}
		}
	}
	return 0
}

// parentOf is a process's parent, 0 where it is gone.
func parentOf(pid int) int {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	// The name in brackets may have spaces.
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(fields) < 2 {
		return 0
	}
	parent, _ := strconv.Atoi(fields[1])
	return parent
}

// kill kills the process that serves, which its keeper replaces.
func (m *mount) kill() {
	if serving := m.serving(); serving != 0 && syscall.Kill(serving, syscall.SIGKILL) == nil {
		m.kills.Add(1)
	}
}

// killAll kills the keeper too, which leaves a dead mount.
func (m *mount) killAll() {
	for _, pid := range session.PidsWithArgument(m.dir) {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	end := time.Now().Add(10 * time.Second)
	for len(session.PidsWithArgument(m.dir)) > 0 && time.Now().Before(end) {
		time.Sleep(5 * time.Millisecond)
	}
}

// deaths counts, by its log, how often the process died by itself.
func (m *mount) deaths() int {
	text, err := os.ReadFile(m.log)
	if err != nil {
		return 0
	}
	return strings.Count(string(text), "died and is replaced") +
		strings.Count(string(text), "times in a row") - int(m.kills.Load())
}

// cause is what the log says of a death.
func (m *mount) cause() string {
	text, _ := os.ReadFile(m.log)
	for line := range strings.Lines(string(text)) {
		for _, word := range []string{"panic:", "fatal error:", "runtime error", "SIGSEGV", "unexpected fault"} {
			if strings.Contains(line, word) {
				return strings.TrimSpace(line[:min(len(line), 200)])
			}
		}
	}
	return "the log names no cause"
}

// memory is the largest memory of its own that a process of the mount has, in bytes.
func (m *mount) memory() int64 {
	var most int64
	for _, pid := range session.PidsWithArgument(m.dir) {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(text)) {
			if rest, ok := strings.CutPrefix(line, "RssAnon:"); ok {
				kib, _ := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
				most = max(most, kib<<10)
			}
		}
	}
	return most
}

// tierBytes is what the tier takes of its file system.
func (m *mount) tierBytes() int64 {
	var sum int64
	_ = filepath.WalkDir(m.tier, func(_ string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil //nolint:nilerr // Files of a tier come and go.
		}
		if fi, err := d.Info(); err == nil {
			if st, ok := fi.Sys().(*syscall.Stat_t); ok {
				sum += st.Blocks * 512
			}
		}
		return nil
	})
	return sum
}
