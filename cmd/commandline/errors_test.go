package commandline

import (
	"errors"
	"strings"
	"testing"

	"millrace.io/millrace/fuse/keeper"
)

func TestExitCodes(t *testing.T) {
	cases := []struct {
		err  error
		code int
		text string
	}{
		{nil, 0, ""},
		{errors.New("a\nb\x1b[2J"), 1, "millrace: a; b?[2J\n"},
		{&UsageError{"mount", errors.New("no")}, 2, "millrace: no; see millrace mount --help\n"},
		{&keeper.EndedError{Code: 2, Sentence: "said so"}, 2, "millrace: said so\n"},
		{&keeper.EndedError{Code: 1, Sentence: "said so", Told: true}, 1, ""},
	}
	for _, c := range cases {
		var out strings.Builder
		if code := Tell(c.err, &out); code != c.code || out.String() != c.text {
			t.Errorf("%v: %d %q", c.err, code, out.String())
		}
	}
}
