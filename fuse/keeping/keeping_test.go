package keeping

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"millrace.io/millrace/fuse/handover"
	"millrace.io/millrace/fuse/socket"
	"millrace.io/millrace/sanity/pace"
)

// rig is a keeper that serves, and the two ends of a pipe, which stand for a device and a state.
type rig struct {
	*Client
	path          string
	device, state *os.File
	// end asks the keeper to end, ended is closed when it has.
	end   context.CancelFunc
	ended chan struct{}
}

func newRig(t *testing.T, most int, patience time.Duration) *rig {
	t.Helper()
	r := &rig{path: filepath.Join(t.TempDir(), "keeper.sock"), ended: make(chan struct{})}
	l, err := socket.Listen(r.path)
	if err != nil {
		t.Fatal(err)
	}
	if r.device, r.state, err = os.Pipe(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r.Client, r.end = Dial(r.path), cancel
	go func() {
		defer close(r.ended)
		if err := New(most, slog.New(slog.DiscardHandler)).Serve(ctx, l, patience); err != nil {
			t.Error(err)
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-r.ended
		_, _ = r.device.Close(), r.state.Close()
	})
	return r
}

// watch watches until the test, or the function that it returns, ends it.
func (r *rig) watch(t *testing.T) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	connected := make(chan struct{})
	go func() { _ = r.Watch(ctx, func() { close(connected) }) }()
	<-connected
	return cancel
}

func (r *rig) put(t *testing.T, id, mount string) {
	t.Helper()
	if err := r.Put(t.Context(), id, mount, r.device, r.state); err != nil {
		t.Fatal(err)
	}
}

// TestKeeps: what was put is given back, replaced and dropped, by the mount's name where one is given.
func TestKeeps(t *testing.T) {
	r := newRig(t, 0, 0)
	r.put(t, "a", "first")
	r.put(t, "a", "second")
	r.put(t, "b", "third")
	mount, device, state, err := r.Get(t.Context(), "a")
	if err != nil || mount != "second" {
		t.Fatalf("it gives the mount %q, %v", mount, err)
	}
	// The two are copies of the ends of a pipe, in their order.
	if _, err := state.WriteString("x"); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 1)
	if _, err := io.ReadFull(device, b); err != nil || b[0] != 'x' {
		t.Errorf("%q, %v", b, err)
	}
	handover.CloseAll([]*os.File{device, state})
	if err := r.Drop(t.Context(), "a", "first"); err != nil {
		t.Fatal(err)
	}
	if kept, err := r.List(t.Context()); err != nil || len(kept) != 2 || kept[0] != (Kept{"a", "second"}) {
		t.Errorf("it keeps %v, %v", kept, err)
	}
	if err := errors.Join(r.Drop(t.Context(), "a", ""), r.Drop(t.Context(), "a", "")); err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := r.Get(t.Context(), "a"); handover.CodeOf(err) != handover.CodeNotFound {
		t.Errorf("what was dropped is answered with %v", err)
	}
}

// TestRefuses: what is too much, or wrong, is refused with a sentence, and leaves no descriptor behind.
func TestRefuses(t *testing.T) {
	r := newRig(t, 2, 0)
	r.put(t, "a", "m")
	r.put(t, "b", "m")
	r.put(t, "a", "n")
	before := descriptors(t)
	for _, tc := range []struct{ id, mount, says string }{
		{"c", "m", "as many as it may"},
		{"", "m", "the id has 0 bytes"},
		{strings.Repeat("i", handover.MaxID+1), "m", "the id has 129 bytes"},
		{"a", "", "the mount has 0 bytes"},
		{"a", strings.Repeat("m", maxMount+1), "the mount has 65 bytes"},
		{"a\n", "m", "control characters"},
	} {
		err := r.Put(t.Context(), tc.id, tc.mount, r.device, r.state)
		if err == nil || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%q %q: %v, want %q", tc.id, tc.mount, err, tc.says)
		}
	}
	_, _, err := r.call(t.Context(), request{Op: opPut, ID: "a", Mount: "m"}, r.device)
	if err == nil || !strings.Contains(err.Error(), "1 descriptors, not 2") {
		t.Error("a put without a state:", err)
	}
	_, _, err = r.call(t.Context(), request{Op: "steal"})
	if err == nil || !strings.Contains(err.Error(), `the request "steal"`) {
		t.Error("another request:", err)
	}
	var answer reply
	files, err := handover.Exchange(t.Context(), "the socket", r.path, version+1, request{Op: opList}, nil, &answer)
	if err == nil || !strings.Contains(err.Error(), "version 1 of the protocol; accepted is 2") || len(files) > 0 {
		t.Errorf("another version of the protocol: %v, %d descriptors", err, len(files))
	}
	// The server closes its end of a connection after the client has its answer.
	after := descriptors(t)
	for until := time.Now().Add(pace.Limit(10 * time.Second)); after > before && time.Now().Before(until); {
		time.Sleep(time.Millisecond)
		after = descriptors(t)
	}
	if after > before {
		t.Errorf("%d descriptors were open before, %d after", before, after)
	}
}

// descriptors counts those of this process.
func descriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// TestSilence: connections that say nothing keep no other away for longer than a request may take.
func TestSilence(t *testing.T) {
	if testing.Short() {
		t.Skip("takes more than two seconds: make test")
	}
	r := newRig(t, 0, 0)
	for range mostConns {
		c, err := net.Dial("unix", r.path)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
	}
	begin := time.Now()
	if _, err := r.List(t.Context()); err != nil {
		t.Fatal(err)
	}
	pace.Within(t, "an answer behind silent connections", time.Since(begin), 2*askTime)
}

// TestEnd: a keeper that is asked to end stays until a driver that watches has all that is kept, and does not let that
// driver go meanwhile.
func TestEnd(t *testing.T) {
	r := newRig(t, 0, time.Hour)
	stop := r.watch(t)
	r.put(t, "a", "m")
	if err := r.Leave(t.Context()); err != nil {
		t.Fatal("the driver may not leave a keeper that stays:", err)
	}
	stop()
	r.end()
	if err := r.stays(t); err != nil {
		t.Fatal(err)
	}
	if err := r.Leave(t.Context()); err == nil || !strings.Contains(err.Error(), "ending itself") {
		t.Error("a driver may leave a keeper that ends:", err)
	}
	r.watch(t)
	_, device, state, err := r.Get(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	handover.CloseAll([]*os.File{device, state})
	<-r.ended
}

// stays is an error where the keeper does not answer any more.
func (r *rig) stays(t *testing.T) error {
	t.Helper()
	for range 3 {
		time.Sleep(lookPause)
		if _, err := r.List(t.Context()); err != nil {
			return err
		}
	}
	return nil
}

// TestEndWithoutDriver: patience ends, and a keeper that keeps nothing needs none.
func TestEndWithoutDriver(t *testing.T) {
	empty := newRig(t, 0, time.Hour)
	empty.end()
	<-empty.ended
	r := newRig(t, 0, 3*lookPause)
	r.put(t, "a", "m")
	r.end()
	<-r.ended
}
