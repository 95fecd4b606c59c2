package main

import (
	"strings"
	"testing"

	"millrace.io/millrace/cmd/command"
	"millrace.io/millrace/cmd/command/refusals"
)

// TestFlagsSayWhatTheyTake gives wrong values to every flag.
func TestFlagsSayWhatTheyTake(t *testing.T) {
	if refused := refusals.Check(t, gatewayCommand().Command); refused < 14 {
		t.Errorf("only %d flags refuse anything", refused)
	}
}

// TestVersion asks for it in both ways, of which neither needs a source.
func TestVersion(t *testing.T) {
	for _, arg := range []string{"version", "--version"} {
		var out strings.Builder
		err := command.Execute(gatewayCommand().Command, []string{arg}, &out)
		if err != nil || !strings.HasPrefix(out.String(), "millrace-gateway dev (") {
			t.Errorf("%s: %q, %v", arg, out.String(), err)
		}
	}
}
