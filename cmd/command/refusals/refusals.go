// Package refusals is the test of each program that its flags say what they take. No program is linked with it.
package refusals

import (
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// taken is how a sentence says what is accepted.
var taken = regexp.MustCompile(`accepted (is|are) |not one of \w|not a whole number from 1 to \d|not true or false`)

// wrong are values of which each flag but those of free text refuses some.
var wrong = []string{"", "no such value", "-1", "0", "99999999Ti", "x,content", "../x", strings.Repeat("9", 400)}

// Check gives values that are wrong in many ways to each flag of root, and of the commands below it. What is refused is
// said in one sentence with the flag, the value and what is accepted. It reports how many flags refused anything.
func Check(t *testing.T, root *cobra.Command) (refused int) {
	t.Helper()
	root.Flags().VisitAll(func(f *pflag.Flag) {
		if checkFlag(t, root.Name(), f) {
			refused++
		}
	})
	for _, below := range root.Commands() {
		refused += Check(t, below)
	}
	return refused
}

func checkFlag(t *testing.T, command string, f *pflag.Flag) (refuses bool) {
	t.Helper()
	for _, value := range wrong {
		err := f.Value.Set(value)
		if err == nil {
			continue
		}
		refuses = true
		named := strings.HasPrefix(err.Error(), "--"+f.Name+" ") || strings.HasPrefix(err.Error(), "-"+f.Shorthand+" ")
		if !named || !taken.MatchString(err.Error()) {
			t.Errorf("%s --%s %q does not say what is accepted: %v", command, f.Name, value, err)
		}
	}
	return refuses
}
