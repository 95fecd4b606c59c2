package main

import (
	"context"
	"slices"
	"testing"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/ufs"
)

// talkative is a store that notes what it was asked to settle.
type talkative struct {
	ufs.Store
	notes []string
}

func (s *talkative) Identity() string { return "one" }

func (s *talkative) Notes() []string { return s.notes }

func (s *talkative) Settle(_ context.Context, was cacheclient.Info) {
	s.notes = append(s.notes, was.Path)
}

// TestRenewableTellsWhatItsStoreTells asks the store that is there now: the agent's notes and the judge of backends are
// those of each source.
func TestRenewableTellsWhatItsStoreTells(t *testing.T) {
	r := newRenewable(&talkative{notes: []string{"a"}})
	r.Settle(t.Context(), cacheclient.Info{Path: "b"})
	if got := r.Notes(); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("notes: %q", got)
	}
	next := &talkative{}
	r.now.Store(new(ufs.Store(next)))
	r.Settle(t.Context(), cacheclient.Info{Path: "c"})
	if got := r.Notes(); !slices.Equal(got, []string{"c"}) {
		t.Errorf("notes of the store that took over: %q", got)
	}
	if r.Identity() != "one" {
		t.Errorf("identity %q", r.Identity())
	}
}
