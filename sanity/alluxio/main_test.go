package main

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"millrace.io/millrace/sanity/cluster"
)

func TestACheckStartsProvesAndStops(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a real Alluxio: make test")
	}
	var out bytes.Buffer
	err := run(t.Context(), &out, []string{"-check", "-masters", "1", "-workers", "1"})
	if errors.Is(err, cluster.ErrMissing) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	for _, want := range []string{"ready after ", "master-1 leads\nalluxio://127.", "worker-1", "100% /proof of life"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in the output:\n%s", want, &out)
		}
	}
}

func TestBadFlagsAreRefused(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"-masters 0", "-masters 0: at least one"},
		{"-masters 12", "Masters of the cluster.Config is 12: from 1 to 9"},
		{"-ufs nowhere", `UFS of the cluster.Config is "nowhere"`},
		{"start", `argument "start": there are only flags`},
	} {
		err := run(t.Context(), &bytes.Buffer{}, strings.Fields(c.args))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.args, err)
		}
	}
}
