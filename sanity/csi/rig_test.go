package csi_test

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/embedded"
	"millrace.io/millrace/cacheclient/ufs"
	"millrace.io/millrace/driver"
	"millrace.io/millrace/fuse/agent"
	"millrace.io/millrace/fuse/handover"
	"millrace.io/millrace/fuse/mountpoint"
	"millrace.io/millrace/fuse/socket"
	"millrace.io/millrace/sanity/pace"
	"millrace.io/millrace/sanity/serve"
	"millrace.io/millrace/sanity/session"
)

// patience bounds everything that a test waits for.
func patience() time.Duration { return pace.Limit(30 * time.Second) }

// node is a node with its kubelet: paths, a source, and the two halves of the program.
type node struct {
	t       *testing.T
	dir     string
	work    *session.Session
	url     string
	data    []byte
	source  *serve.Server
	conn    *grpc.ClientConn
	log     *logBuffer
	plugin  *session.Process
	serving *session.Process
	keeper  *session.Process
	// attach is the agent's socket where it is another than usual.
	attach string
}

// The sockets and directories of a node.
func (n *node) at(name string) string      { return filepath.Join(n.dir, name) }
func (n *node) staging(id string) string   { return n.at("kubelet/plugins/" + id + "/globalmount") }
func (n *node) attachSocket() string       { return cmp.Or(n.attach, n.at("attach.sock")) }
func (n *node) target(id, p string) string { return n.at("kubelet/pods/" + p + "/" + id + "/mount") }

// csiSocket is in the state directory, as it is where millrace is installed.
func (n *node) csiSocket() string { return n.at("state/csi.sock") }

// newNode makes a node on which nothing runs yet. At the end of the test it has to be clean.
func newNode(t *testing.T) *node {
	t.Helper()
	if testing.Short() {
		t.Skip("builds the program and mounts with it: make test")
	}
	if !mountpoint.HasSysAdmin() {
		t.Skip("needs root: mount(2)")
	}
	if why := session.CanMount(); why != "" {
		t.Skip(why)
	}
	dir, err := os.MkdirTemp(base, "node-") //nolint:usetesting // leftovers are looked for below base
	if err != nil {
		t.Fatal(err)
	}
	n := &node{t: t, dir: dir, work: session.New(context.Background()), log: &logBuffer{}}
	t.Cleanup(n.close)
	for _, name := range []string{"source/sub", "tier", "state", "registration", "kubelet"} {
		if err := os.MkdirAll(n.at(name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	n.data = bytes.Repeat([]byte("millrace runs\n"), 100_000)
	for _, name := range []string{"source/file", "source/sub/other"} {
		if err := os.WriteFile(n.at(name), n.data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if n.source, err = serve.New(n.at("source"), serve.Options{}); err == nil {
		n.url, err = n.source.Start("127.0.0.1:0")
		n.url = "http://" + strings.TrimPrefix(n.url, "http://") + "/"
	}
	if err != nil {
		t.Fatal(err)
	}
	n.conn, err = grpc.NewClient("unix://"+n.csiSocket(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: time.Second}))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// close stops everything and looks for leftovers.
func (n *node) close() {
	if n.conn != nil {
		_ = n.conn.Close()
	}
	n.work.Close()
	if n.source != nil {
		_ = n.source.Close()
	}
	mounts, _ := mountpoint.Below(n.dir)
	for _, m := range mounts {
		n.t.Errorf("still mounted: %s %s", m.MountPoint, m.FsType)
		_ = mountpoint.Detach(m.MountPoint, mountpoint.Abruptly)
	}
	if n.t.Failed() {
		n.t.Log(n.log.String())
	}
	_ = os.RemoveAll(n.dir)
}

// startAgent starts the serving half as a process.
func (n *node) startAgent() {
	n.t.Helper()
	n.startAgentOf(bin)
}

// startAgentOf starts the serving half of a build, or by a command that starts it.
func (n *node) startAgentOf(command ...string) {
	n.t.Helper()
	args := append(slices.Clone(command[1:]), "agent", "--attach-socket", n.attachSocket(), "--socket",
		n.at("agent.sock"), "--tier-dir", n.at("tier"),
		"--allow-local", n.at("source"))
	p, err := n.work.Start(n.log, command[0], args...)
	if err != nil {
		n.t.Fatal(err)
	}
	n.serving = p
}

// keeperSocket is where the keeper listens, where there is one.
func (n *node) keeperSocket() string { return n.at("keeper.sock") }

// startKeeper starts the keeper as a process. A plugin that is started later hands over to it.
func (n *node) startKeeper() {
	n.t.Helper()
	p, err := n.work.Start(n.log, keeperBin, "--socket", n.keeperSocket())
	if err != nil {
		n.t.Fatal(err)
	}
	n.keeper = p
}

// startPlugin starts the mounting half as a process.
func (n *node) startPlugin() {
	n.t.Helper()
	n.startPluginOf(bin)
}

// startPluginOf starts the mounting half by a command that starts it.
func (n *node) startPluginOf(command ...string) {
	n.t.Helper()
	keeper := "none"
	if n.keeper != nil {
		keeper = n.keeperSocket()
	}
	args := append(slices.Clone(command[1:]), "node", "--endpoint", "unix://"+n.csiSocket(), "--node-id", "node-1",
		"--keeper-socket", keeper,
		"--agent-socket", n.attachSocket(), "--state-dir", n.at("state"), "--registration-dir", n.at("registration"),
		"--health", "unix://"+n.at("health.sock"), "--tier-dir", n.at("tier"), "--allow-local", n.at("source"))
	p, err := n.work.Start(n.log, command[0], args...)
	if err != nil {
		n.t.Fatal(err)
	}
	n.plugin = p
}

// startInside starts both halves in this process, and returns when volumes can be staged.
func (n *node) startInside() {
	n.t.Helper()
	log := slog.New(slog.NewTextHandler(n.log, &slog.HandlerOptions{Level: slog.LevelInfo}))
	policy := handover.Policy{TierDirs: []string{n.at("tier")}, LocalSources: []string{n.at("source")}}
	l, err := socket.Listen(n.attachSocket())
	if err != nil {
		n.t.Fatal(err)
	}
	open := func(ctx context.Context, v handover.Volume, _ bool) (cacheclient.Client, error) {
		store, err := ufs.Open(ctx, v.Source, ufs.Options{Values: v.Options})
		if err != nil {
			return nil, err
		}
		return embedded.New(store, embedded.Config{Levels: []embedded.LevelConfig{{
			Dir:   n.at("tier"),
			Quota: 64 << 20,
		}}})
	}
	sessions := agent.NewSessions(open, policy, agent.New(log), log)
	d, err := driver.New(driver.Config{
		Endpoint: n.csiSocket(), NodeID: "node-1", Version: "test", AgentSocket: n.attachSocket(),
		StateDir: n.at("state"), RegistrationDir: n.at("registration"), Policy: policy, Log: log,
	})
	if err != nil {
		n.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := sessions.Serve(ctx, l); err != nil {
			n.t.Error("agent:", err)
		}
	})
	running.Go(func() {
		if err := d.Run(ctx); err != nil {
			n.t.Error("driver:", err)
		}
	})
	n.work.Defer(func() { cancel(); running.Wait() })
	n.waitReady()
}

// waitReady returns when the driver says that volumes can be staged.
func (n *node) waitReady() {
	n.t.Helper()
	n.eventually("the driver is ready", func(ctx context.Context) error {
		resp, err := csi.NewIdentityClient(n.conn).Probe(ctx, &csi.ProbeRequest{}, grpc.WaitForReady(true))
		if err == nil && !resp.GetReady().GetValue() {
			err = errors.New("not ready")
		}
		return err
	})
}

// eventually tries until it works.
func (n *node) eventually(what string, try func(context.Context) error) {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), patience())
	defer cancel()
	if err := retry(ctx, try); err != nil {
		n.t.Fatalf("%s: %v", what, err)
	}
}

// retry tries until it works or the context ends.
func retry(ctx context.Context, try func(context.Context) error) error {
	for {
		err := try(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// mountCapability is how volumes are used here.
func mountCapability() *csi.VolumeCapability {
	return &csi.VolumeCapability{
		AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{}},
		AccessMode: &csi.VolumeCapability_AccessMode{Mode: csi.VolumeCapability_AccessMode_MULTI_NODE_READER_ONLY},
	}
}

// volumeContext are the attributes of the volumes here.
func (n *node) volumeContext() map[string]string { return map[string]string{"source": n.url} }

// client is the driver's node service.
func (n *node) client() csi.NodeClient { return csi.NewNodeClient(n.conn) }

func (n *node) stage(ctx context.Context, id string) error {
	// The orchestrator makes the staging path's directory.
	if err := os.MkdirAll(filepath.Dir(n.staging(id)), 0o750); err != nil {
		return err
	}
	_, err := n.client().NodeStageVolume(ctx, &csi.NodeStageVolumeRequest{
		VolumeId: id, StagingTargetPath: n.staging(id), VolumeCapability: mountCapability(),
		VolumeContext: n.volumeContext(),
	})
	return err
}

func (n *node) publish(ctx context.Context, id, pod string) error {
	return n.publishAs(ctx, id, pod, n.volumeContext())
}

// publishAs publishes a volume of these attributes, as its PersistentVolume has them.
func (n *node) publishAs(ctx context.Context, id, pod string, attributes map[string]string) error {
	if err := os.MkdirAll(filepath.Dir(n.target(id, pod)), 0o750); err != nil {
		return err
	}
	_, err := n.client().NodePublishVolume(ctx, &csi.NodePublishVolumeRequest{
		VolumeId: id, StagingTargetPath: n.staging(id), TargetPath: n.target(id, pod),
		VolumeCapability: mountCapability(),
		VolumeContext:    attributes, Readonly: true,
	})
	return err
}

func (n *node) unpublish(ctx context.Context, id, pod string) error {
	_, err := n.client().NodeUnpublishVolume(ctx, &csi.NodeUnpublishVolumeRequest{
		VolumeId:   id,
		TargetPath: n.target(id, pod),
	})
	return err
}

func (n *node) unstage(ctx context.Context, id string) error {
	_, err := n.client().NodeUnstageVolume(ctx, &csi.NodeUnstageVolumeRequest{
		VolumeId:          id,
		StagingTargetPath: n.staging(id),
	})
	return err
}

// must fails the test where a call fails.
func (n *node) must(what string, err error) {
	n.t.Helper()
	if err != nil {
		n.t.Fatalf("%s: %v", what, err)
	}
}

// insist makes a call again and again while the answer says that it may work later. Any other answer fails.
func insist(ctx context.Context, call func(context.Context) error) error {
	var final error
	err := retry(ctx, func(ctx context.Context) error {
		err := call(ctx)
		switch status.Code(err) {
		case codes.OK, codes.Unavailable, codes.Aborted, codes.DeadlineExceeded, codes.Canceled:
			return err
		}
		final = err
		return nil
	})
	return errors.Join(err, final)
}

// read compares the file in the directory with what the source has, within the limit.
func (n *node) read(dir string) error {
	type result struct {
		data []byte
		err  error
	}
	done := make(chan result, 1)
	go func() {
		data, err := os.ReadFile(filepath.Join(dir, "file"))
		done <- result{data, err}
	}()
	select {
	case r := <-done:
		if r.err == nil && sha256.Sum256(r.data) != sha256.Sum256(n.data) {
			return fmt.Errorf("%s: %d bytes that are not the source's", dir, len(r.data))
		}
		return r.err
	case <-time.After(patience()):
		return fmt.Errorf("reading in %s takes more than %s", dir, patience())
	}
}

// logged reports whether the log has the text. What a process writes arrives a moment later.
func (n *node) logged(text string) func(context.Context) error {
	return func(context.Context) error {
		if !strings.Contains(n.log.String(), text) {
			return fmt.Errorf("the log has no %q", text)
		}
		return nil
	}
}

// layersAt is how many mounts lie on the path.
func layersAt(path string) int {
	mounts, _ := mountpoint.Layers(path)
	return len(mounts)
}

// logBuffer collects log lines.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
