package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
	mount "k8s.io/mount-utils"

	"millrace.io/millrace/cmd/commandline"
	"millrace.io/millrace/fuse/agent"
	"millrace.io/millrace/fuse/mountpoint"
)

const (
	// mountProbes is how many mounts are asked at once: one that hangs takes five seconds.
	mountProbes = 64
	// wantedReadAhead is the read-ahead in KiB above which more gains little.
	wantedReadAhead = 1024
	// askPatience is longer than mountpoint.IsStale waits.
	askPatience = 8 * time.Second
)

// checkMounts checks the mounts of this machine, and the processes that answer for them.
func checkMounts(socket string) []finding {
	table, err := mountpoint.Table(func(m *mount.MountInfo) bool { return m.FsType == mountpoint.FSType })
	if err != nil {
		return []finding{bad("mounts", "ls -l /proc/self/mountinfo", "cannot be listed: %v", err)}
	}
	servers, err := serversOf(socket)
	if err != nil {
		return []finding{bad("sockets", "ls -ld \"$MILLRACE_RUNTIME_DIR\" /run/millrace",
			"the list of mounts cannot be read: %v", err)}
	}
	sockets, served := checkSockets(servers)
	return append(mountFindings(probeMounts(connections(table), served)), sockets...)
}

// connections are the mounts of the table, one of each connection: what is bound to other places is asked once.
func connections(table []mount.MountInfo) []mount.MountInfo {
	var out []mount.MountInfo
	for _, m := range table {
		if !slices.ContainsFunc(out, func(o mount.MountInfo) bool { return o.Major == m.Major && o.Minor == m.Minor }) {
			out = append(out, m)
		}
	}
	return out
}

// mountProbe is what one mount answered.
type mountProbe struct {
	dir string
	// stale says that its process has gone, err that it does not answer.
	stale bool
	err   error
	// bdi is the file with its read-ahead, readAhead what is in it in KiB, -1 where that cannot be told.
	bdi       string
	readAhead int
}

// probeMounts asks every mount that no process has answered for.
func probeMounts(mounts []mount.MountInfo, served []string) []mountProbe {
	probes := make([]mountProbe, len(mounts))
	room := semaphore.NewWeighted(mountProbes)
	var asking sync.WaitGroup
	for i, m := range mounts {
		bdi := fmt.Sprintf("/sys/class/bdi/%d:%d/read_ahead_kb", m.Major, m.Minor)
		probes[i] = mountProbe{dir: m.MountPoint, bdi: bdi, readAhead: readNumber(bdi)}
		if slices.Contains(served, m.MountPoint) {
			continue
		}
		// Without an end of the context there is no error.
		_ = room.Acquire(context.Background(), 1)
		asking.Go(func() {
			defer room.Release(1)
			probes[i].stale, probes[i].err = askMount(m.MountPoint)
		})
	}
	asking.Wait()
	return probes
}

// askVar has a child of doctor ask the mount that it names, and nothing else.
const askVar = "MILLRACE_DOCTOR_ASKS"

// What the child answers; all else is an error's sentence.
const (
	answerWell  = "well"
	answerStale = "stale"
	// answerDenied is a mount of another user.
	answerDenied = "denied"
)

// askMount reports whether the mount's process has gone; a mount that does not answer is an error. Another process
// asks: a process that asks a mount that hangs cannot be killed until it answers or is aborted.
func askMount(dir string) (stale bool, err error) {
	read, write, err := os.Pipe()
	if err != nil {
		return false, err
	}
	defer func() { _ = read.Close() }()
	self, err := os.Executable()
	if err != nil {
		return false, err
	}
	child := exec.Command(self, "doctor") //nolint:noctx,gosec // It may have to be left behind, and is this program.
	child.Env = append(os.Environ(), askVar+"="+dir)
	child.Dir = "/"
	child.Stdout = write
	err = child.Start()
	_ = write.Close()
	if err != nil {
		return false, err
	}
	_ = read.SetReadDeadline(time.Now().Add(askPatience))
	answer, err := bufio.NewReader(read).ReadString('\n')
	if err != nil {
		_ = child.Process.Kill()
		return false, fmt.Errorf("no answer came within %v", askPatience)
	}
	switch answer = strings.TrimSpace(answer); answer {
	case answerWell, answerStale:
		return answer == answerStale, child.Wait()
	case answerDenied:
		return false, fs.ErrPermission
	}
	return false, errors.New(answer)
}

// answerFor asks the mount, in the child.
func answerFor(dir string, out io.Writer) error {
	stale, err := mountpoint.IsStale(dir)
	answer := answerWell
	switch {
	case errors.Is(err, fs.ErrPermission):
		answer = answerDenied
	case err != nil:
		answer = commandline.OneLine(err.Error())
	case stale:
		answer = answerStale
	}
	_, err = fmt.Fprintln(out, answer)
	return err
}

// mountFindings has a line for all mounts that are well, and one for each that is not.
func mountFindings(probes []mountProbe) []finding {
	var findings []finding
	well := 0
	for _, p := range probes {
		switch {
		case p.stale:
			findings = append(findings, bad("mount", "millrace unmount "+quoted(p.dir),
				"%s is dead: the process that served it has gone", p.dir))
		case errors.Is(p.err, fs.ErrPermission):
			findings = append(findings, warn("mount", "sudo millrace doctor",
				"%s is another user's and cannot be asked", p.dir))
		case p.err != nil:
			findings = append(findings, bad("mount", "millrace unmount --force "+quoted(p.dir),
				"%s does not answer: %v", p.dir, p.err))
		case p.readAhead >= 0 && p.readAhead < wantedReadAhead:
			findings = append(findings, warn("mount", "echo 4096 | sudo tee "+p.bdi,
				"%s answers, and reads only %d KiB ahead: reads by copying could be faster", p.dir, p.readAhead))
		default:
			well++
		}
	}
	if well > 0 || len(probes) == 0 {
		findings = append(findings, fine("mounts", "%d of %d answer and read ahead as they should", well, len(probes)))
	}
	return findings
}

// checkSockets asks every server, and looks at what else could. It also gives the mount points that are answered for.
func checkSockets(servers []server) (findings []finding, served []string) {
	well := 0
	for _, s := range servers {
		mode := fs.FileMode(0)
		st, err := os.Lstat(s.socket)
		if err == nil {
			mode = st.Mode()
		}
		mounts, asked := s.mounts(context.Background())
		for _, m := range mounts {
			if m.State == agent.StateServing {
				served = append(served, m.Dir)
			}
		}
		found := socketFindings(s, mode, errors.Join(err, asked), mounts)
		if len(found) == 0 {
			well++
		}
		findings = append(findings, found...)
	}
	if well > 0 || len(servers) == 0 {
		findings = append(findings, fine("sockets", "%d of %d answer, and only to their owner", well, len(servers)))
	}
	return findings, served
}

// socketFindings is what is wrong with a server, whose socket has the mode and which said this of its mounts.
func socketFindings(s server, mode fs.FileMode, err error, mounts []agent.MountStatus) []finding {
	var findings []finding
	if err != nil {
		if len(s.listed) > 0 && s.listed[0].Dead {
			// Its mount is known to be dead already.
			return []finding{bad("socket", "millrace unmount "+quoted(s.listed[0].Dir),
				"%s: the process %d that served %s has gone", s.socket, s.listed[0].PID, s.listed[0].Dir)}
		}
		mend := "ls -l " + quoted(s.socket)
		if len(s.listed) > 0 && s.listed[0].PID > 0 {
			mend = "kill -QUIT " + strconv.Itoa(s.listed[0].PID) +
				" (its goroutines go to its log), then millrace unmount --force " + quoted(s.listed[0].Dir)
		}
		return []finding{bad("socket", mend, "%s does not answer: %v", s.socket, err)}
	}
	if mode.Perm()&0o077 != 0 {
		findings = append(findings, warn("socket", "chmod 0600 "+quoted(s.socket),
			"%s has the mode %04o: others may connect to it", s.socket, mode.Perm()))
	}
	for _, m := range mounts {
		if m.Condition != nil && m.Condition.Abnormal {
			findings = append(findings, bad("mount", "millrace trace "+quoted(m.Dir)+"; curl -I "+quoted(m.Source),
				"%s is not well: %s", m.Dir, m.Condition.Message))
		}
	}
	return findings
}
