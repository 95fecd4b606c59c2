package main

import (
	"strings"
	"testing"
	"time"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/fuse/agent"
)

// TestRevalidateContent reads the form of --revalidate that compares content.
func TestRevalidateContent(t *testing.T) {
	for value, want := range map[string]struct {
		age     time.Duration
		content string
	}{"1m": {time.Minute, ""}, "1m,content": {time.Minute, "content"}, "0,content": {0, "content"}} {
		c := &mountConfig{options: map[string]string{}}
		age, err := c.parseRevalidate(value)
		if err != nil || age != want.age || c.options["validate"] != want.content {
			t.Errorf("%s: %v, %q, %v", value, age, c.options, err)
		}
	}
	for _, value := range []string{"content", "1m,", "1m,size", ",content"} {
		c := &mountConfig{options: map[string]string{}}
		if _, err := c.parseRevalidate(value); err == nil {
			t.Errorf("%s is accepted", value)
		}
	}
}

// TestNotesInStatus writes what was noticed of sources, in one line each.
func TestNotesInStatus(t *testing.T) {
	var out strings.Builder
	writeNotes(&out, []agent.MountStatus{
		{Dir: "/silent"},
		{Dir: "/well", Counters: &cacheclient.Counters{}},
		{Dir: "/odd", Counters: &cacheclient.Counters{SourceNotes: []string{"HEAD is\nwrong", "the tree holds itself"}}},
	})
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 2 || !strings.HasPrefix(lines[0], "/odd: HEAD is") || lines[1] != "/odd: the tree holds itself" {
		t.Errorf("%q", lines)
	}
}
