package command

import (
	"encoding/json"
	"io"
	"strings"
	"testing"

	"millrace.io/millrace/cmd/commandline"
)

func TestVersionText(t *testing.T) {
	v := versionOf("millrace", commandline.Build{
		Version: "v1.2.3", Revision: "abc", Time: "2026-01-02T03:04:05Z", Modified: true, Go: "go1.2",
		Modules: map[string]string{"github.com/hanwen/go-fuse/v2": "v2.1", "github.com/rclone/rclone": "v1.9"},
	})
	want := "millrace v1.2.3 (revision abc of 2026-01-02T03:04:05Z, modified) go1.2, go-fuse v2.1, rclone v1.9"
	if got := v.String(); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	text, err := json.Marshal(versionOf("millrace-keeper", commandline.Build{Version: "dev", Go: "go1.2"}))
	want = `{"program":"millrace-keeper","version":"dev","modified":false,"go":"go1.2"}`
	if err != nil || string(text) != want {
		t.Errorf("got %s, %v, want %s", text, err, want)
	}
}

// TestProgram asks a program of one command for its version, in each way and beside other arguments.
func TestProgram(t *testing.T) {
	for line, want := range map[string]string{
		"--version":             "millrace-x dev (",
		"version":               "millrace-x dev (",
		"-version":              "millrace-x dev (",
		"--name v --version":    "millrace-x dev (",
		"version -o json":       `{"program":"millrace-x","version":"dev",`,
		"--version -o json":     `{"program":"millrace-x","version":"dev",`,
		"name version":          "it runs: name version",
		"--version=false":       "it runs: ",
		"--help":                "--version",
		"__complete --vers":     "--version\t",
		"version --output=yaml": `-o "yaml" is not one of text, json; see millrace version --help`,
	} {
		c := New("x", "", "", "")
		name := ""
		c.Text(&name, "name", "")
		c.Runs(func(args []string, out io.Writer) error {
			_, err := io.WriteString(out, "it runs: "+strings.Join(args, " "))
			return err
		})
		var out strings.Builder
		err := Execute(c.Program().Command, strings.Fields(line), &out)
		if err != nil {
			out.WriteString(err.Error())
		}
		if !strings.Contains(out.String(), want) {
			t.Errorf("%s: %q, want %q", line, out.String(), want)
		}
	}
}
