package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/embedded"
	"millrace.io/millrace/cacheclient/ufs"
	"millrace.io/millrace/fuse/handover"
	"millrace.io/millrace/fuse/mountpoint"
	"millrace.io/millrace/fuse/socket"
	"millrace.io/millrace/sanity/pace"
)

// node is a holder and the agents that it has one after the other, each in this process.
type node struct {
	base, attach string
	holder       *handover.Client
	opens        atomic.Int64
	stop         func()
	// wrap stands before each client that is opened; nil for none.
	wrap atomic.Pointer[func(cacheclient.Client) cacheclient.Client]
}

func newNode(t *testing.T) *node {
	t.Helper()
	if !mountpoint.HasSysAdmin() {
		t.Skip("needs root: mount(2)")
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skip("needs /dev/fuse:", err)
	}
	n := &node{base: t.TempDir()}
	n.attach = filepath.Join(n.base, "attach.sock")
	n.holder = handover.Dial(n.attach)
	n.start(t)
	t.Cleanup(func() { n.stop() })
	return n
}

func (n *node) open(ctx context.Context, v handover.Volume, _ bool) (cacheclient.Client, error) {
	n.opens.Add(1)
	store, err := ufs.Open(ctx, v.Source, ufs.Options{})
	if err != nil {
		return nil, err
	}
	cache, err := embedded.New(store, embedded.Config{Levels: []embedded.LevelConfig{{Dir: filepath.Join(n.base,
		"tier"), Quota: 64 << 20}}})
	wrap := n.wrap.Load()
	if err != nil || wrap == nil {
		return cache, err
	}
	return (*wrap)(cache), nil
}

// start starts an agent; n.stop stops it as a signal would.
func (n *node) start(t *testing.T) {
	t.Helper()
	l, err := socket.Listen(n.attach)
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	policy := handover.Policy{TierDirs: []string{n.base}, LocalSources: []string{n.base}}
	sessions := NewSessions(n.open, policy, New(log), log)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- sessions.Serve(ctx, l) }()
	n.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// mount makes a mount that no process serves yet.
func (n *node) mount(t *testing.T, id string) (handover.Volume, *os.File) {
	t.Helper()
	v := handover.Volume{ID: id, Dir: filepath.Join(n.base, "mnt-"+id), Source: filepath.Join(n.base, "source")}
	if err := os.MkdirAll(v.Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	device, err := mountpoint.Attach(t.Context(), mountpoint.Options{Dir: v.Dir, Source: "test", AllowOther: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = device.Close()
		_ = mountpoint.Detach(v.Dir, mountpoint.Lazily)
	})
	return v, device
}

// attached mounts and attaches a volume.
func (n *node) attached(t *testing.T, id string) (handover.Volume, *os.File, *os.File) {
	t.Helper()
	v, device := n.mount(t, id)
	state, err := n.holder.Attach(t.Context(), v, device, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = state.Close() })
	if _, err := mountpoint.Settle(v.Dir, 1024); err != nil {
		t.Fatal(err)
	}
	return v, device, state
}

func code(t *testing.T, err error, want handover.Code) {
	t.Helper()
	if err == nil || handover.CodeOf(err) != want {
		t.Errorf("%v; want the code %s", err, want)
	}
}

// TestAgentComesAndGoes: volumes are attached, survive their agent, are taken by another holder, and end.
func TestAgentComesAndGoes(t *testing.T) {
	n := newNode(t)
	writeFile(t, filepath.Join(n.base, "source", "f"), 3<<20)
	want, err := os.ReadFile(filepath.Join(n.base, "source", "f"))
	if err != nil {
		t.Fatal(err)
	}
	v, device, state := n.attached(t, "a")
	w, _, _ := n.attached(t, "b")
	if n.opens.Load() != 1 {
		t.Errorf("two volumes of one source opened it %d times", n.opens.Load())
	}
	if got, err := os.ReadFile(filepath.Join(w.Dir, "f")); err != nil || !bytes.Equal(got, want) {
		t.Fatal(len(got), err)
	}
	held, err := os.Open(filepath.Join(v.Dir, "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = held.Close() }()
	watched := make(chan error, 1)
	connected := make(chan struct{})
	go func() { watched <- n.holder.Watch(t.Context(), func() { close(connected) }) }()
	<-connected
	n.stop()
	if err := <-watched; err != nil {
		t.Error(err)
	}
	n.start(t)
	again, err := n.holder.Attach(t.Context(), v, device, state)
	if err != nil {
		t.Fatal(err)
	}
	_ = again.Close()
	if got, err := io.ReadAll(held); err != nil || !bytes.Equal(got, want) {
		t.Error(len(got), err)
	}
	// The same volume once more is no error, another description of it is.
	if again, err = n.holder.Attach(t.Context(), v, device, state); err != nil {
		t.Error(err)
	} else {
		_ = again.Close()
	}
	other := v
	other.UID = 7
	_, err = n.holder.Attach(t.Context(), other, device, state)
	code(t, err, handover.CodeExists)

	ids, err := n.holder.List(t.Context())
	if err != nil || !slices.Equal(ids, []string{"a"}) {
		t.Error(ids, err)
	}
	taken, dev, st, err := n.holder.Take(t.Context(), "a")
	if err != nil || !same(taken, v) {
		t.Fatal(taken, err)
	}
	_, _ = dev.Close(), st.Close()
	stats, err := n.holder.Stats(t.Context(), "a")
	if err != nil || stats.Abnormal || stats.Capacity != 64<<20 || stats.Files == 0 {
		t.Errorf("%+v, %v", stats, err)
	}
	_ = held.Close()
	if err := mountpoint.Detach(v.Dir, mountpoint.Plainly); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := n.holder.Detach(t.Context(), "a"); err != nil {
			t.Error(err)
		}
	}
	_, _, _, err = n.holder.Take(t.Context(), "a")
	code(t, err, handover.CodeNotFound)
}

// hangingClient hangs as a cache whose lock is never released, whatever its callers' contexts say.
type hangingClient struct {
	cacheclient.Client
	entered, release chan struct{}
}

func (c *hangingClient) Stat(ctx context.Context, path string) (cacheclient.Info, error) {
	if path == "hangs" {
		c.entered <- struct{}{}
		<-c.release
	}
	return c.Client.Stat(ctx, path)
}

func (c *hangingClient) Capacity() cacheclient.Capacity {
	<-c.release
	return c.Client.Capacity()
}

func (c *hangingClient) Close() error {
	<-c.release
	return c.Client.Close()
}

// TestHandoverDespiteAHang: a cache that hangs, for a reader, for a question and for its end, holds the handover of no
// session up.
func TestHandoverDespiteAHang(t *testing.T) {
	if testing.Short() {
		t.Skip("takes more than two seconds: make test")
	}
	n := newNode(t)
	writeFile(t, filepath.Join(n.base, "source", "hangs"), 100)
	hanging := &hangingClient{entered: make(chan struct{}, 1), release: make(chan struct{})}
	wrap := func(c cacheclient.Client) cacheclient.Client {
		hanging.Client = c
		return hanging
	}
	n.wrap.Store(&wrap)
	v, device, state := n.attached(t, "a")
	size := make(chan int64, 1)
	go func() {
		st, err := os.Stat(filepath.Join(v.Dir, "hangs"))
		if err != nil {
			t.Error(err)
			size <- -1
			return
		}
		size <- st.Size()
	}()
	<-hanging.entered
	go func() { _, _ = n.holder.Stats(t.Context(), "a") }()
	watched, connected := make(chan error, 1), make(chan struct{})
	go func() { watched <- n.holder.Watch(t.Context(), func() { close(connected) }) }()
	<-connected
	began := time.Now()
	n.stop()
	if err := <-watched; err != nil {
		t.Error(err)
	}
	pace.Within(t, "the handover of a session that hangs", time.Since(began), 15*time.Second)
	defer close(hanging.release)
	// The tier is the hanging cache's until its process ends.
	next := NewSessions(func(ctx context.Context, v handover.Volume, _ bool) (cacheclient.Client, error) {
		store, err := ufs.Open(ctx, v.Source, ufs.Options{})
		if err != nil {
			return nil, err
		}
		return embedded.New(store, embedded.Config{})
	}, handover.Policy{LocalSources: []string{n.base}}, New(slog.New(slog.DiscardHandler)),
		slog.New(slog.DiscardHandler))
	copies := make([]*os.File, 0, 2)
	for _, f := range []*os.File{device, state} {
		fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		copies = append(copies, os.NewFile(uintptr(fd), f.Name()))
	}
	saved, err := next.attach(t.Context(), v, copies[0], copies[1])
	if err != nil {
		t.Fatal(err)
	}
	_ = saved.Close()
	if got := <-size; got != 100 {
		t.Errorf("the request that hung tells %d bytes", got)
	}
	next.Close()
}

// TestAttachRefused: what cannot be attached is refused with a code and a sentence, and nothing is left open.
func TestAttachRefused(t *testing.T) {
	n := newNode(t)
	writeFile(t, filepath.Join(n.base, "source", "f"), 10)
	v, device := n.mount(t, "a")
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = null.Close() }()
	before := openFiles(t)
	cases := map[string]struct {
		change func(*handover.Volume)
		device *os.File
		state  *os.File
		want   handover.Code
	}{
		"no id":           {func(v *handover.Volume) { v.ID = "" }, device, nil, handover.CodeInvalid},
		"tier elsewhere":  {func(v *handover.Volume) { v.TierDir = "/etc" }, device, nil, handover.CodeInvalid},
		"source not ours": {func(v *handover.Volume) { v.Source = "/etc" }, device, nil, handover.CodeInvalid},
		"no such source":  {func(v *handover.Volume) { v.Source += "/missing" }, device, nil, handover.CodeInvalid},
		"no device":       {func(*handover.Volume) {}, null, nil, handover.CodeInvalid},
		"no state":        {func(*handover.Volume) {}, device, null, handover.CodeState},
		"in its source":   {func(v *handover.Volume) { v.Dir = v.Source + "/m" }, device, nil, handover.CodeInvalid},
		// It is refused for its state, and not for where it is.
		"in its source again": {func(v *handover.Volume) { v.Dir = v.Source + "/m" }, device, null, handover.CodeState},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			changed := v
			c.change(&changed)
			state, err := n.holder.Attach(t.Context(), changed, c.device, c.state)
			if state != nil {
				t.Error("a state was returned")
			}
			code(t, err, c.want)
		})
	}
	if ids, err := n.holder.List(t.Context()); err != nil || len(ids) != 0 {
		t.Error(ids, err)
	}
	eventually(t, "the agent closes what it was given", func() bool { return openFiles(t) <= before })
}

// attaching is the request to attach a volume.
func attaching(v handover.Volume, device *os.File) handover.Request {
	return handover.Request{Op: handover.OpAttach, Volume: &v, Files: []*os.File{device}}
}

// TestAttachSurvivesPanics: a volume whose cache cannot be opened for a panic is refused to all that wait for it, and
// the agent ends as ever.
func TestAttachSurvivesPanics(t *testing.T) {
	n := newNode(t)
	writeFile(t, filepath.Join(n.base, "source", "f"), 10)
	one, two := attaching(n.mount(t, "a")), attaching(n.mount(t, "b"))
	log := slog.New(slog.DiscardHandler)
	sessions := NewSessions(func(context.Context, handover.Volume, bool) (cacheclient.Client,
		error,
	) {
		panic("the test's")
	},
		handover.Policy{LocalSources: []string{n.base}}, New(log), log)
	refused := make(chan error, 2)
	for _, request := range []handover.Request{one, two} {
		go func() {
			_, err := sessions.answerSafely(t.Context(), request)
			refused <- err
		}()
	}
	for range 2 {
		select {
		case err := <-refused:
			code(t, err, handover.CodeInternal)
		case <-time.After(pace.Limit(30 * time.Second)):
			t.Fatal("who attaches waits for ever")
		}
	}
	if ids := sessions.list(); len(ids) != 0 || len(sessions.clients) != 0 {
		t.Errorf("%v and %d caches are left", ids, len(sessions.clients))
	}
	sessions.Close()
}

// TestManyAttachments: rounds of attaching and detaching leave no descriptor and no goroutine behind.
func TestManyAttachments(t *testing.T) {
	n := newNode(t)
	writeFile(t, filepath.Join(n.base, "source", "f"), 100)
	round := func(i int) {
		v, device := n.mount(t, fmt.Sprint("round-", i%7))
		state, err := n.holder.Attach(t.Context(), v, device, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := mountpoint.Settle(v.Dir, 1024); err != nil {
			t.Fatal(err)
		}
		if _, err := os.ReadFile(filepath.Join(v.Dir, "f")); err != nil {
			t.Error(err)
		}
		if err := errors.Join(mountpoint.Detach(v.Dir, mountpoint.Plainly),
			n.holder.Detach(t.Context(), v.ID)); err != nil {
			t.Error(err)
		}
		_, _ = device.Close(), state.Close()
	}
	rounds := 60
	if os.Getenv("MILLRACE_SOAK") != "" {
		rounds = 1000
	}
	for i := range 10 {
		round(i)
	}
	files, goroutines := openFiles(t), runtime.NumGoroutine()
	for i := range rounds {
		round(i)
	}
	eventually(t, "descriptors and goroutines are as many as before", func() bool {
		return openFiles(t) <= files && runtime.NumGoroutine() <= goroutines+2
	})
}

// TestNonsenseOnTheWire: anything else than a request gets an error or a closed connection, and the
// agent goes on.
func TestNonsenseOnTheWire(t *testing.T) {
	n := newNode(t)
	for _, text := range []string{
		"", "\x00\x00\x00\x04nope", "\xff\xff\xff\xff", "\x00\x00\x00\x02{}",
		"GET / HTTP/1.1\r\n\r\n",
	} {
		conn, err := net.Dial("unix", n.attach)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = conn.Write([]byte(text))
		_ = conn.(*net.UnixConn).CloseWrite()
		_ = conn.SetDeadline(time.Now().Add(pace.Limit(30 * time.Second)))
		if _, err := io.ReadAll(conn); err != nil && !errors.Is(err, unix.ECONNRESET) {
			t.Errorf("%q: %v", text, err)
		}
		_ = conn.Close()
	}
	if _, err := n.holder.List(t.Context()); err != nil {
		t.Error(err)
	}
	_, err := n.holder.Stats(t.Context(), "nobody")
	code(t, err, handover.CodeNotFound)
}

func openFiles(t *testing.T) int {
	t.Helper()
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(names)
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(pace.Limit(30 * time.Second)); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Error("did not happen:", what)
}
