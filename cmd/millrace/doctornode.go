package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"millrace.io/millrace/cmd/command"
	"millrace.io/millrace/cmd/commandline"
	"millrace.io/millrace/driver"
	"millrace.io/millrace/fuse/handover"
	"millrace.io/millrace/fuse/mountpoint"
	"millrace.io/millrace/fuse/socket"
)

// container is the process that the container was started for, where that is a driver or an agent: doctor runs beside
// it, and looks at what that process needs and was told. Both are nil elsewhere.
type container struct {
	agent  *agentConfig
	driver *driver.Config
}

// containerOf reads the command line of a container's first process (proc_pid_cmdline(5)).
func containerOf(cmdline []byte) container {
	words := strings.Split(string(bytes.TrimSuffix(cmdline, []byte{0})), "\x00")
	if len(words) < 2 || filepath.Base(words[0]) != "millrace" {
		return container{}
	}
	read := func(f *command.Command) error {
		f.Runs(func([]string, io.Writer) error { return nil })
		return command.Execute(f.Command, words[2:], io.Discard)
	}
	switch words[1] {
	case "agent":
		f, c := newAgent()
		if read(f) != nil {
			return container{}
		}
		if len(c.tierDirs) == 0 {
			c.tierDirs = []string{defaultTierRoot()}
		}
		if c.prepare() == nil {
			return container{agent: c}
		}
	case "node":
		f, c := newNode()
		if read(f) == nil {
			return container{driver: &c.driver}
		}
	default:
	}
	return container{}
}

// ownContainer is the container that this process was started in beside its first one.
func ownContainer() container {
	cmdline, err := os.ReadFile("/proc/1/cmdline")
	if err != nil || os.Getpid() == 1 {
		return container{}
	}
	return containerOf(cmdline)
}

// askTime is how long a driver or an agent may take to answer from its memory.
const askTime = 3 * time.Second

// restart mends what only another process of the container can.
const restart = "kill 1 (kubelet starts the container again; mounts stay, and readers wait)"

// checkAgent checks what the agent of a node needs, in its container: the driver opens the device and mounts.
func checkAgent(c *agentConfig) []finding {
	findings := []finding{
		fine("process", "an agent, which gets its mounts from the driver and needs no /dev/fuse"),
		kernelFinding(kernelRelease()),
		adminFinding(mountpoint.HasSysAdmin()),
		filesFinding(openFilesLimit()),
		pagesFinding(readNumber("/proc/sys/fs/fuse/max_pages_limit")),
	}
	for _, dir := range c.tierDirs {
		findings = append(findings, checkTier(dir))
	}
	ctx, cancel := context.WithTimeout(context.Background(), askTime)
	defer cancel()
	ids, err := handover.Dial(c.attachSocket).List(ctx)
	findings = append(findings, attachFinding(c.attachSocket, len(ids), err, restart))
	sockets, _ := checkSockets([]server{{socket: c.socket}})
	return append(findings, sockets...)
}

// attachFinding judges the socket on which an agent takes volumes over.
func attachFinding(path string, volumes int, err error, mend string) finding {
	const check = "volumes"
	if err != nil {
		return bad(check, mend, "no agent answers on %s: %v", path, err)
	}
	return fine(check, "the agent answers on %s and serves %d", path, volumes)
}

// checkDriver checks what the driver of a node needs, in its container, and the agent that it hands volumes to.
func checkDriver(c *driver.Config) []finding {
	admin := mountpoint.HasSysAdmin()
	status, _ := os.ReadFile("/proc/self/status")
	findings := []finding{
		fine("process", "a driver, which mounts what the agent serves"),
		kernelFinding(kernelRelease()),
		deviceFinding(openFuse()),
		confinementFinding(admin, statusField(status, "Seccomp"), statusField(status, "NoNewPrivs"), probeMount()),
		listenerFinding("CSI socket", c.Endpoint),
	}
	if c.RegistrationDir != "" {
		findings = append(findings, listenerFinding("registration", driver.RegistrationSocket(c.RegistrationDir)))
	}
	if c.Health != "" {
		findings = append(findings, readyFinding(askReady(c.Health)))
	}
	ctx, cancel := context.WithTimeout(context.Background(), askTime)
	defer cancel()
	ids, err := handover.Dial(c.AgentSocket).List(ctx)
	mend := "kubectl get pods -A -o wide -l app.kubernetes.io/component=agent --field-selector spec.nodeName=" +
		quoted(c.NodeID)
	findings = append(findings, attachFinding(c.AgentSocket, len(ids), err, mend))
	for _, f := range checkMounts("") {
		if f.Check == "mount" && f.Result == verdictFail {
			f.Mend = mendOnNode(f.Found)
		}
		findings = append(findings, f)
	}
	return findings
}

// mendOnNode is what mends a mount of the driver's, which it mounts anew by itself where it can.
func mendOnNode(found string) string {
	if _, rest, ok := strings.Cut(found, "/pods/"); ok {
		uid, _, _ := strings.Cut(rest, "/")
		return "kubectl get pods -A -o custom-columns=:.metadata.namespace,:.metadata.name,:.metadata.uid | grep " +
			quoted(uid) + ", and delete that pod"
	}
	return restart
}

// listenerFinding reports whether a process listens on the socket.
func listenerFinding(check, path string) finding {
	if !socket.Answers(path) {
		return bad(check, restart, "nothing listens on %s, so that kubelet cannot reach the driver", path)
	}
	return fine(check, "%s answers", path)
}

// askReady asks the driver whether its volumes are in order.
func askReady(health string) error {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		if strings.HasPrefix(health, "unix:") {
			path, err := driver.EndpointPath(health)
			if err != nil {
				return nil, err
			}
			return socket.Dial(ctx, path)
		}
		return new(net.Dialer).DialContext(ctx, "tcp", health)
	}
	client := http.Client{Timeout: askTime, Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, "http://millrace/readyz", http.NoBody)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("%s does not answer: %w", health, errors.Unwrap(err))
	}
	defer func() { _ = resp.Body.Close() }()
	said, err := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = errors.New(commandline.OneLine(strings.TrimSpace(string(said))))
	}
	return err
}

func readyFinding(err error) finding {
	const check = "driver"
	if err != nil {
		return bad(check, restart, "is not ready: %v", err)
	}
	return fine(check, "is ready: its volumes are in order")
}

// check makes the checks of a container's kind, and reports whether it is one that is known.
func (c container) check() (findings []finding, known bool) {
	switch {
	case c.agent != nil:
		return checkAgent(c.agent), true
	case c.driver != nil:
		return checkDriver(c.driver), true
	}
	return nil, false
}
