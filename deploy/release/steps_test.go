package main

import (
	"context"
	"errors"
	"regexp"
	"strings"
	"testing"
)

// TestSteps takes steps of which one fails: each done is told with its number, and none is taken after the failure.
func TestSteps(t *testing.T) {
	var out strings.Builder
	r := &release{out: &out}
	failure := errors.New("no")
	var at []string
	steps := []step{
		{"first", func(context.Context) error { r.part.Say("half"); return nil }},
		{"second", func(context.Context) error { at = append(at, r.part.After("second")); return failure }},
		{"third", func(context.Context) error { at = append(at, "third"); return nil }},
	}
	err := r.take(t.Context(), steps)
	if !errors.Is(err, failure) || err.Error() != "second: no" {
		t.Error(err)
	}
	if !regexp.MustCompile(`^1 of 3, first: done in 0\.\d s\n$`).MatchString(out.String()) {
		t.Errorf("it says %q", out.String())
	}
	if got := strings.Join(at, " "); got != "second" {
		t.Errorf("a step begins with what the one before was at, or another is taken after it failed: %s", got)
	}
}

// TestFollow has what a command prints last be what the step is at, and its failure told with what it said.
func TestFollow(t *testing.T) {
	r := &release{}
	if err := r.follow(t.Context(), []string{"WORD=two"}, "sh", "-c", `echo one; echo "$WORD"`); err != nil {
		t.Error(err)
	}
	if got := r.part.After("at"); got != "at: two" {
		t.Error(got)
	}
	err := r.follow(t.Context(), nil, "sh", "-c", "echo bad >&2; exit 3")
	if err == nil || !strings.HasSuffix(err.Error(), "exit status 3: bad") {
		t.Error(err)
	}
}
