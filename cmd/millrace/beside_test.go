package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestProgramsBeside has millrace become the programs beside it, and say so where they are not there.
func TestProgramsBeside(t *testing.T) {
	r := newRig(t)
	for _, name := range []string{"controller", "gateway"} {
		if out := r.ok(name, "--help").out; !strings.Contains(out, "Usage: millrace "+name) {
			t.Errorf("%s --help prints %q", name, out)
		}
		for _, args := range [][]string{{name, "--version"}, {name, "version"}} {
			out := r.ok(args...).out
			if !strings.HasPrefix(out, "millrace-"+name+" ") || !strings.Contains(out, ") go1.") {
				t.Errorf("%q prints %q", args, out)
			}
		}
		r.refused(2, []string{"there is no flag --no-such", "see millrace " + name + " --help"}, name, "--no-such")
	}
	alone := filepath.Join(r.base, "millrace")
	// A copy could not be run while a test beside this one forks with the file still open to write.
	if err := os.Link(r.bin, alone); err != nil {
		t.Fatal(err)
	}
	r.bin = alone
	r.refused(1, []string{"millrace-controller is neither beside", "nor in PATH"}, "controller")
}
