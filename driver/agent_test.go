package driver

import (
	"errors"
	"io"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"millrace.io/millrace/fuse/handover"
	"millrace.io/millrace/fuse/keeping"
	"millrace.io/millrace/fuse/socket"
)

// fakeAgent answers as an agent does, and serves nothing: a device is any file, and no mount is looked at.
type fakeAgent struct {
	mu       sync.Mutex // guards what follows
	sessions map[string]handover.Volume
	// asked are the requests since the test looked last, such as "attach a"; those that only ask are left out.
	asked []string
	// states are what was attached with, by the volume; "" for none.
	states map[string]string
	// lost are the pods that it was told of last.
	lost []handover.LostPod
	// stats are what it tells of a session.
	stats map[string]handover.Stats
	// refuses is the error for a request, nil to answer.
	refuses func(op handover.Op, id string) error
}

// newDriver is a driver whose state is in a directory of the test's, and its agent, which is connected.
func newDriver(t *testing.T, change func(*Config)) (*Driver, *fakeAgent) {
	t.Helper()
	// A socket's path is short.
	dir, err := os.MkdirTemp("", "driver-*") //nolint:usetesting // A test's own directory has a path that may be too long.
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	cfg := Config{
		Endpoint: filepath.Join(dir, "csi.sock"), NodeID: "n", Version: "v1", AgentSocket: filepath.Join(dir, "agent.sock"),
		StateDir: filepath.Join(dir, "state"),
	}
	if change != nil {
		change(&cfg)
	}
	d, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	lock, err := d.openState()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		d.custody.closeAll()
		_ = lock.Close()
	})
	a := &fakeAgent{
		sessions: map[string]handover.Volume{}, states: map[string]string{}, stats: map[string]handover.Stats{},
	}
	l, err := socket.Listen(cfg.AgentSocket)
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() { a.serve(l, &serving) })
	t.Cleanup(func() {
		_ = l.Close()
		serving.Wait()
	})
	d.custody.setUp(true)
	return d, a
}

func (a *fakeAgent) serve(l net.Listener, serving *sync.WaitGroup) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		serving.Go(func() {
			defer func() { _ = conn.Close() }()
			u, ok := conn.(*net.UnixConn)
			if !ok {
				return
			}
			r, err := handover.Receive(u)
			if err != nil {
				return
			}
			reply, err := a.answer(r)
			handover.CloseAll(r.Files)
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				_ = handover.Refuse(u, err)
				return
			}
			_ = handover.Answer(u, reply)
			handover.CloseAll(reply.Files)
		})
	}
}

// answer is what comes of a request. An error that is io.EOF is no answer.
func (a *fakeAgent) answer(r handover.Request) (handover.Reply, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if r.Op != handover.OpList && r.Op != handover.OpStats {
		a.asked = append(a.asked, strings.TrimSpace(string(r.Op)+" "+r.ID))
	}
	if a.refuses != nil {
		if err := a.refuses(r.Op, r.ID); err != nil {
			return handover.Reply{}, err
		}
	}
	volume, has := a.sessions[r.ID]
	switch r.Op {
	case handover.OpList:
		return handover.Reply{IDs: slices.Sorted(maps.Keys(a.sessions))}, nil
	case handover.OpLost:
		a.lost = r.Lost
		return handover.Reply{}, nil
	case handover.OpAttach:
		a.sessions[r.ID], a.states[r.ID] = *r.Volume, ""
		if len(r.Files) > 1 {
			text, _ := io.ReadAll(r.Files[1])
			a.states[r.ID] = string(text)
		}
		return handover.Reply{Files: files("a later state")}, nil
	}
	if !has {
		return handover.Reply{}, handover.Errorf(handover.CodeNotFound, "no session %s", r.ID)
	}
	switch r.Op {
	case handover.OpDetach:
		delete(a.sessions, r.ID)
	case handover.OpRenew:
		a.sessions[r.ID] = *r.Volume
	case handover.OpTake:
		return handover.Reply{Volume: &volume, Files: files("a device", "a state")}, nil
	case handover.OpStats:
		s := a.stats[r.ID]
		return handover.Reply{Stats: &s}, nil
	}
	return handover.Reply{}, nil
}

// serves has it serve a session that the driver did not give it.
func (a *fakeAgent) serves(v handover.Volume) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.sessions[v.ID] = v
}

// forgets has it serve nothing, as one that has just begun.
func (a *fakeAgent) forgets() {
	a.mu.Lock()
	defer a.mu.Unlock()
	clear(a.sessions)
}

// session is the session of a volume, the zero value for none.
func (a *fakeAgent) session(id string) handover.Volume {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.sessions[id]
}

// served are the ids of its sessions.
func (a *fakeAgent) served() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Sorted(maps.Keys(a.sessions))
}

// stateOf is the state with which a volume was attached.
func (a *fakeAgent) stateOf(id string) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.states[id]
}

// knowsLost are the pods that it was told of last.
func (a *fakeAgent) knowsLost() []handover.LostPod {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.lost
}

// tells has it say this of a session.
func (a *fakeAgent) tells(id string, s handover.Stats) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.stats[id] = s
}

// files are open files of no name, each with a text.
func files(texts ...string) []*os.File {
	var all []*os.File
	for _, text := range texts {
		r, w, err := os.Pipe()
		if err != nil {
			return all
		}
		_, _ = w.WriteString(text)
		_ = w.Close()
		all = append(all, r)
	}
	return all
}

// did are the requests since it was asked last.
func (a *fakeAgent) did() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	did := a.asked
	a.asked = nil
	slices.Sort(did)
	return strings.Join(did, ", ")
}

// refuse has requests fail.
func (a *fakeAgent) refuse(refuses func(op handover.Op, id string) error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.refuses = refuses
}

// put puts a record on the driver's shelf.
func put(t *testing.T, d *Driver, rec record) record {
	t.Helper()
	if err := d.records.put(rec.Volume.ID, rec); err != nil {
		t.Fatal(err)
	}
	return rec
}

// newRecord is one of a volume that is staged in a directory of the test's, where nothing is mounted.
func newRecord(t *testing.T, id string) record {
	t.Helper()
	return record{
		Phase: phaseStaged, Mount: "m", Minor: 1 << 19,
		Volume: handover.Volume{ID: id, Dir: filepath.Join(t.TempDir(), "staging"), Source: "s3://b"},
	}
}

// hold has the driver hold a volume's files, given to no agent yet.
func hold(t *testing.T, d *Driver, rec record) *held {
	t.Helper()
	all := files("a device", "the state of before")
	if len(all) != 2 {
		t.Fatal("there are no pipes")
	}
	return d.custody.add(rec.Volume, rec.Mount, all[0], all[1], 0)
}

// newKeeper is a keeper that the driver is connected to.
func newKeeper(t *testing.T, d *Driver) {
	t.Helper()
	l, err := socket.Listen(d.cfg.KeeperSocket)
	if err != nil {
		t.Fatal(err)
	}
	k := keeping.New(0, slog.New(slog.DiscardHandler))
	var serving sync.WaitGroup
	serving.Go(func() { _ = k.Serve(t.Context(), l, 0) })
	t.Cleanup(serving.Wait)
	d.third.setUp(true)
	d.third.settle()
}
