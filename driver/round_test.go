package driver

import (
	"errors"
	"io"
	"os"
	"slices"
	"testing"
	"time"

	"millrace.io/millrace/fuse/handover"
)

// TestAgentGetsWhatIsHeld: an agent that appears is given each volume that is held and that it does not serve, with the
// state of before. What it serves is left alone, and a second round asks for nothing.
func TestAgentGetsWhatIsHeld(t *testing.T) {
	d, agent := newDriver(t, nil)
	for _, id := range []string{"new", "served"} {
		hold(t, d, put(t, d, newRecord(t, id)))
	}
	agent.serves(handover.Volume{ID: "served"})
	if err := d.round(t.Context()); err != nil {
		t.Fatal(err)
	}
	if did := agent.did(); did != "attach new, lost" {
		t.Errorf("it was asked for %q", did)
	}
	if state := agent.stateOf("new"); state != "the state of before" {
		t.Errorf("it was given the state %q", state)
	}
	if !d.adopted.Load() {
		t.Error("the node is not ready")
	}
	if err := d.round(t.Context()); err != nil || agent.did() != "" {
		t.Errorf("the second round: %v", err)
	}
	// The next agent gets what the last one left.
	agent.forgets()
	d.custody.setUp(false)
	d.custody.setUp(true)
	if err := d.round(t.Context()); err != nil {
		t.Fatal(err)
	}
	if state := agent.stateOf("new"); state != "a later state" {
		t.Errorf("the next agent was given the state %q", state)
	}
}

// TestAgentThatTakesNothing: a volume that cannot be attached now is held for the next try, and the others are
// attached. The node is ready, as the source may be what is wrong.
func TestAgentThatTakesNothing(t *testing.T) {
	d, agent := newDriver(t, nil)
	for _, id := range []string{"a", "b"} {
		hold(t, d, put(t, d, newRecord(t, id)))
	}
	agent.refuse(func(op handover.Op, id string) error {
		if op == handover.OpAttach && id == "a" {
			return io.EOF
		}
		return nil
	})
	if err := d.round(t.Context()); err == nil {
		t.Error("it is no error")
	}
	if !d.custody.holds("a") || !d.adopted.Load() || agent.session("b").ID != "b" {
		t.Errorf("a is held: %v, ready: %v, served are %v", d.custody.holds("a"), d.adopted.Load(), agent.served())
	}
	agent.refuse(nil)
	if err := d.round(t.Context()); err != nil || agent.session("a").ID != "a" {
		t.Errorf("the next round: %v, served are %v", err, agent.served())
	}
}

// TestReadyOnlyAfterAnAnswer: a node whose agent does not answer does not take its volumes for adopted.
func TestReadyOnlyAfterAnAnswer(t *testing.T) {
	d, agent := newDriver(t, nil)
	agent.refuse(func(handover.Op, string) error { return io.EOF })
	if err := d.round(t.Context()); err == nil || d.adopted.Load() {
		t.Errorf("adopted: %v, %v", d.adopted.Load(), err)
	}
	d.serving.Store(true)
	if err := d.ready(); err == nil {
		t.Error("it is ready")
	}
	agent.refuse(nil)
	if err := errors.Join(d.round(t.Context()), d.ready()); err != nil {
		t.Error(err)
	}
	d.custody.setUp(false)
	if err := d.ready(); !errors.Is(err, errAway) {
		t.Errorf("without an agent: %v", err)
	}
	d.serving.Store(false)
	if d.alive() == nil {
		t.Error("it lives without its socket")
	}
}

// TestInterruptedIsUndone: a round undoes what was being staged or unstaged when the driver ended.
func TestInterruptedIsUndone(t *testing.T) {
	d, agent := newDriver(t, nil)
	rec := newRecord(t, "v")
	rec.Phase = phasePartial
	put(t, d, rec)
	agent.serves(rec.Volume)
	if err := d.round(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, known := d.records.get("v"); known || agent.session("v").ID != "" {
		t.Errorf("the record is there: %v, served are %v", known, agent.served())
	}
}

// TestVolumeWithoutItsDirectories: a volume whose pods and directories are gone is forgotten, and not mounted anew.
func TestVolumeWithoutItsDirectories(t *testing.T) {
	d, agent := newDriver(t, nil)
	rec := newRecord(t, "v")
	rec.Targets = []target{{Path: rec.Volume.Dir + "-target"}}
	put(t, d, rec)
	if err := d.round(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, known := d.records.get("v"); known {
		t.Error("it is known still")
	}
	if did := agent.did(); did != "detach v, lost, take v" {
		t.Errorf("the agent was asked for %q", did)
	}
}

// TestOrphans: a session that no record knows is ended; unless a record could not be read, which may be its own.
func TestOrphans(t *testing.T) {
	for name, tc := range map[string]struct {
		damaged []string
		ends    bool
	}{"all records are read": {nil, true}, "one is damaged": {[]string{"x.json.damaged"}, false}} {
		d, agent := newDriver(t, nil)
		d.records.damaged = tc.damaged
		dir := t.TempDir()
		agent.serves(handover.Volume{ID: "orphan", Dir: dir})
		if err := d.round(t.Context()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if ended := agent.session("orphan").ID == ""; ended != tc.ends {
			t.Errorf("%s: it is ended: %v", name, ended)
		}
		if _, err := os.Stat(dir); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestLostPodsAreTold: an agent is told of the pods that have to be restarted when that is news to it, and each agent
// once. Of a pod without a name nothing is told.
func TestLostPodsAreTold(t *testing.T) {
	d, agent := newDriver(t, nil)
	since := time.Unix(1e9, 0).UTC()
	rec := newRecord(t, "v")
	rec.Targets = []target{
		{Path: "/a", Pod: pod{"ns", "one", "uid-1"}, Lost: lost{Since: since}},
		{Path: "/b", Pod: pod{"ns", "two", "uid-2"}},
		{Path: "/c", Lost: lost{Since: since}},
	}
	put(t, d, rec)
	want := []handover.LostPod{{Volume: "v", Namespace: "ns", Name: "one", UID: "uid-1", Since: since}}
	for i, step := range []struct {
		do    func()
		asked string
		fails bool
	}{
		{func() {}, "lost", false},
		{func() {}, "", false},
		{func() { d.custody.setUp(false); d.custody.setUp(true) }, "lost", false},
		{func() { put(t, d, rec.without("/a")); want = nil }, "lost", false},
		{func() { put(t, d, rec); agent.refuse(func(handover.Op, string) error { return io.EOF }) }, "lost", true},
		{func() {
			agent.refuse(func(handover.Op, string) error { return handover.Errorf(handover.CodeInvalid, "what?") })
		}, "lost", false},
		{func() {}, "", false},
	} {
		step.do()
		err := d.tellLost(t.Context())
		if did := agent.did(); did != step.asked || (err != nil) != step.fails {
			t.Errorf("step %d: asked for %q, %v", i, did, err)
		}
		if i < 4 && !slices.Equal(agent.knowsLost(), want) {
			t.Errorf("step %d: it knows of %v", i, agent.knowsLost())
		}
	}
}

// TestWhichTargetsAreThere: a target whose directory is gone is bound no more; a file in its place is none.
func TestWhichTargetsAreThere(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/file", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	rec, there := presentTargets(record{Targets: []target{{Path: dir + "/gone"}, {Path: dir}, {Path: dir + "/file"}}})
	if !there || len(rec.Targets) != 1 || rec.Targets[0].Path != dir {
		t.Errorf("%v, %v", rec.Targets, there)
	}
	if _, there := presentTargets(record{Targets: []target{{Path: dir + "/gone"}}}); there {
		t.Error("one that is gone is there")
	}
}

// TestKeeperDropsWhatIsStale: what the keeper keeps and no record knows is dropped, unless a record could not be read.
// What a driver before left there of another mount is dropped when it is asked for.
func TestKeeperDropsWhatIsStale(t *testing.T) {
	d, _ := newDriver(t, func(c *Config) { c.KeeperSocket = c.Endpoint + "-keeper" })
	newKeeper(t, d)
	keep := func(id, mount string) {
		t.Helper()
		all := files("a device", "a state")
		if err := d.third.keeper.Put(t.Context(), id, mount, all[0], all[1]); err != nil {
			t.Fatal(err)
		}
		handover.CloseAll(all)
	}
	kept := func() int {
		t.Helper()
		all, err := d.third.keeper.List(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	put(t, d, newRecord(t, "known"))
	keep("known", "m")
	keep("unknown", "m")
	d.records.damaged = []string{"x.json.damaged"}
	if d.adoptKept(t.Context()); kept() != 2 {
		t.Errorf("with a damaged record %d are kept", kept())
	}
	d.records.damaged = nil
	if d.adoptKept(t.Context()); kept() != 1 {
		t.Errorf("%d are kept", kept())
	}
	for mount, has := range map[string]bool{"m": true, "another": false} {
		keep("known", "m")
		device, state, err := d.third.get(t.Context(), "known", mount)
		if err != nil || (device != nil) != has || (state != nil) != has {
			t.Errorf("of the mount %s it has %v, %v, %v", mount, device, state, err)
		}
		handover.CloseAll([]*os.File{device, state})
		if dropped := kept() == 0; dropped == has {
			t.Errorf("of the mount %s it keeps %d", mount, kept())
		}
	}
	if device, _, err := d.third.get(t.Context(), "none", "m"); device != nil || err != nil {
		t.Errorf("of none it has %v, %v", device, err)
	}
}

// TestKeeperGetsWhatIsHeld: each keeper gets each volume once, and the driver does not leave before it has all.
func TestKeeperGetsWhatIsHeld(t *testing.T) {
	d, _ := newDriver(t, func(c *Config) { c.KeeperSocket = c.Endpoint + "-keeper" })
	newKeeper(t, d)
	h := hold(t, d, newRecord(t, "v"))
	if d.third.mayLeave(t.Context()) {
		t.Error("it may leave before the keeper has all")
	}
	d.third.put(t.Context(), h)
	if h.kept != 1 {
		t.Fatal("the keeper has nothing")
	}
	if err := d.third.drop(t.Context(), "v"); err != nil {
		t.Fatal(err)
	}
	d.third.put(t.Context(), h)
	if all, err := d.third.keeper.List(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("the same keeper was given it twice: %v, %v", all, err)
	}
	d.third.setUp(false)
	d.third.setUp(true)
	d.third.put(t.Context(), h)
	if all, err := d.third.keeper.List(t.Context()); err != nil || len(all) != 1 {
		t.Errorf("the next keeper has %v, %v", all, err)
	}
	d.third.setUp(false)
	if d.third.mayLeave(t.Context()) {
		t.Error("it may leave although no keeper is there")
	}
	if err := d.third.drop(t.Context(), "v"); err != nil {
		t.Errorf("a keeper that is not there is asked: %v", err)
	}
}
