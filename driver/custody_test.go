package driver

import (
	"context"
	"errors"
	"io"
	"testing"

	"millrace.io/millrace/fuse/handover"
)

// TestAwait: a call waits for the agent until one is there, and says that none is when its time is over.
func TestAwait(t *testing.T) {
	d, _ := newDriver(t, nil)
	if generation, err := d.custody.await(t.Context()); generation != 1 || err != nil {
		t.Errorf("the first agent: %d, %v", generation, err)
	}
	d.custody.setUp(false)
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := d.custody.await(over); !errors.Is(err, errAway) {
		t.Errorf("without one: %v", err)
	}
	waited := make(chan int)
	go func() {
		generation, _ := d.custody.await(t.Context())
		waited <- generation
	}()
	d.custody.setUp(true)
	if generation := <-waited; generation != 2 {
		t.Errorf("the second agent: %d", generation)
	}
}

// TestWhatComesOfAnAttach: files that an agent cannot take over belong to a dead connection; a failure that says
// nothing of the connection keeps them.
func TestWhatComesOfAnAttach(t *testing.T) {
	for name, tc := range map[string]struct {
		says  error
		dead  bool
		fails bool
	}{
		"it takes over":                      {nil, false, false},
		"it cannot read the state":           {handover.Errorf(handover.CodeState, "of another build"), true, false},
		"it refuses, and nothing is mounted": {handover.Errorf(handover.CodeUnavailable, "no source"), true, false},
		"it ends meanwhile":                  {io.EOF, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			d, agent := newDriver(t, nil)
			h := hold(t, d, newRecord(t, "v"))
			agent.refuse(func(handover.Op, string) error { return tc.says })
			dead, err := d.custody.attach(t.Context(), h)
			if dead != tc.dead || (err != nil) != tc.fails {
				t.Errorf("dead: %v, %v", dead, err)
			}
			if taken := h.generation == 1; taken != (tc.says == nil) {
				t.Errorf("it is taken over: %v", taken)
			}
			if _, err := h.device.Stat(); err != nil {
				t.Errorf("the device is closed: %v", err)
			}
		})
	}
}

// TestReleased: what is given up is closed, is given to no agent any more, and is no error when given up twice.
func TestReleased(t *testing.T) {
	d, agent := newDriver(t, nil)
	h := hold(t, d, newRecord(t, "v"))
	d.custody.release("v")
	d.custody.release("v")
	if _, err := h.device.Stat(); err == nil || d.custody.holds("v") {
		t.Errorf("it is held: %v, %v", d.custody.holds("v"), err)
	}
	if dead, err := d.custody.attach(t.Context(), h); dead {
		t.Errorf("its connection is dead: %v", err)
	}
	if did := agent.did(); did != "" {
		t.Errorf("the agent was asked for %q", did)
	}
	d.custody.renew(handover.Volume{ID: "v"})
}

// TestRotatedSecretsReachTheNextAgent: an agent that appears is given the secrets of now.
func TestRotatedSecretsReachTheNextAgent(t *testing.T) {
	d, agent := newDriver(t, nil)
	rec := newRecord(t, "v")
	rec.Volume.Secrets = map[string]string{"key": "old"}
	hold(t, d, put(t, d, rec))
	agent.serves(rec.Volume)
	rec.Volume.Secrets = map[string]string{"key": "new"}
	d.renew(t.Context(), rec.Volume)
	if key := agent.session("v").Secrets["key"]; key != "new" {
		t.Errorf("the agent that is there goes on with the %s one", key)
	}
	agent.forgets()
	if err := d.round(t.Context()); err != nil {
		t.Fatal(err)
	}
	if key := agent.session("v").Secrets["key"]; key != "new" {
		t.Errorf("the next one begins with the %s one", key)
	}
	agent.did()
	if d.renew(t.Context(), handover.Volume{ID: "v"}); agent.did() != "" {
		t.Error("a volume without secrets is renewed")
	}
}

// TestSpread: mounts of one PersistentVolume get the secrets that one of them was given, and no others'.
func TestSpread(t *testing.T) {
	d, agent := newDriver(t, nil)
	with := func(id, of, source, secret string) record {
		rec := newRecord(t, id)
		rec.Of, rec.Volume.Source, rec.Volume.Secrets = of, source, map[string]string{"key": secret}
		agent.serves(rec.Volume)
		return put(t, d, rec)
	}
	staged := with("v", "", "s3://b", "new")
	with("v@view", "v", "s3://b", "old")
	with("v@stranger", "v", "s3://other", "old")
	with("w", "", "s3://b", "old")
	d.spread(t.Context(), staged)
	for id, want := range map[string]string{"v": "new", "v@view": "new", "v@stranger": "old", "w": "old"} {
		rec, _ := d.records.get(id)
		if rec.Volume.Secrets["key"] != want || agent.session(id).Secrets["key"] != want {
			t.Errorf("%s is recorded with the %s one, and served with the %s one, not the %s one", id,
				rec.Volume.Secrets["key"], agent.session(id).Secrets["key"], want)
		}
	}
	if did := agent.did(); did != "renew v@view" {
		t.Errorf("the agent was asked for %q", did)
	}
}
