package command

import (
	"io"
	"slices"
	"strings"
	"testing"
)

// TestDashes has each spelling of a flag read as what it was before, and what is no flag left alone.
func TestDashes(t *testing.T) {
	c := New("x", "", "", "")
	count, name, on := "", "", false
	c.Text(&count, "count,n", "")
	c.Text(&name, "name", "")
	c.Toggle(&on, "on", "")
	for args, want := range map[string]string{
		"-name v":             "--name v",
		"--name v -on":        "--name v --on",
		"-name=-on -on=false": "--name=-on --on=false",
		"-name -on -n -name":  "--name -on -n -name",
		"--n 5 --n=5 -n5":     "-n 5 -n=5 -n5",
		"a -on b":             "a --on b",
		"a -- -on -name":      "a -- -on -name",
		"-on -name":           "--on --name",
		"- -= --= ---name":    "- -= --= ---name",
		"-test.v -other":      "--test.v --other",
		"-x --x":              "-x --x",
	} {
		if got := dashes(c.Flags(), strings.Fields(args)); !slices.Equal(got, strings.Fields(want)) {
			t.Errorf("%s: %q, want %s", args, got, want)
		}
	}
}

// FuzzArguments has no arguments end the program, and wrong ones told in a sentence.
func FuzzArguments(f *testing.F) {
	for _, s := range []string{
		"-name v", "--n=5", "-", "--", "-=", "---x", "-test.v", "-h", "--help", "-on=x", "-é",
		"--é=", "-n",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		c := New("x", "", "", "")
		count, name, on := "", "", false
		c.Text(&count, "count,n", "")
		c.Text(&name, "name", "")
		c.Toggle(&on, "on", "")
		c.Runs(func([]string, io.Writer) error { return nil })
		if err := Execute(c.Command, strings.Fields(line), io.Discard); err != nil &&
			!strings.HasSuffix(err.Error(), "; see millrace x --help") {
			t.Errorf("%q: %v", line, err)
		}
	})
}
