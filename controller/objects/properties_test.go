package objects

import (
	"slices"
	"strings"
	"testing"
)

// TestElections has masters elect sooner than Alluxio's, except where a runtime says something of it, or there is
// no leader to elect.
func TestElections(t *testing.T) {
	walkthrough := read(t, "testdata/walkthrough.yaml")
	for name, tc := range map[string]struct {
		replicas   int32
		properties map[string]string
		want       string
	}{
		"three masters": {3, nil, electionMin + "=4s\n"},
		"one master":    {1, nil, ""},
		"the user's":    {3, map[string]string{electionMin: "1s"}, electionMin + "=1s\n"},
		"half of it":    {3, map[string]string{electionMax: "30s"}, electionMax + "=30s\n"},
	} {
		t.Run(name, func(t *testing.T) {
			in := walkthrough
			in.Runtime = walkthrough.Runtime.DeepCopy()
			in.Runtime.Spec.Master.Replicas, in.Runtime.Spec.Master.Properties = tc.replicas, tc.properties
			plan, problems := Desired(in)
			if len(problems) > 0 {
				t.Fatal(problems)
			}
			var lines []string
			for line := range strings.Lines(string(render(t, plan))) {
				if strings.Contains(line, "election.timeout") {
					lines = append(lines, strings.TrimLeft(line, " "))
				}
			}
			if tc.want == "" && len(lines) > 0 || tc.want != "" && !slices.Contains(lines, tc.want) ||
				tc.properties != nil && len(lines) != 1 {
				t.Errorf("the masters have %q, want %q", lines, tc.want)
			}
		})
	}
}
