package main

import (
	"io"
	"slices"
	"strings"
	"testing"

	"millrace.io/millrace/cmd/command"
	"millrace.io/millrace/cmd/command/refusals"
	"millrace.io/millrace/cmd/commandline"
)

// readArgs reads a command's arguments without running it.
func readArgs(f *command.Command, args []string, take func(rest []string) error) error {
	f.Runs(func(rest []string, _ io.Writer) error { return take(rest) })
	return command.Execute(f.Command, args, io.Discard)
}

func parseMount(args []string) (*mountConfig, error) {
	f, c := newMount()
	return c, readArgs(f, args, func(rest []string) error { return c.take(f, rest) })
}

func parseNode(args []string) (*nodeConfig, error) {
	f, c := newNode()
	return c, readArgs(f, args, func(rest []string) error { return c.check(f, rest) })
}

func parseAgent(args []string) (*agentConfig, error) {
	f, c := newAgent()
	return c, readArgs(f, args, func([]string) error { return nil })
}

func TestFlagsMayFollowArguments(t *testing.T) {
	for _, args := range [][]string{
		{"--quota", "1Gi", "--background", "src", "dir"},
		{"src", "--quota", "1Gi", "dir", "--background"},
		{"src", "dir", "--background", "--quota=1Gi"},
		{"--background", "-quota", "1Gi", "--", "src", "dir"},
	} {
		c, err := parseMount(args)
		if err != nil {
			t.Errorf("%q: %v", args, err)
			continue
		}
		if c.source != "src" || c.dir != "dir" || !c.background || !slices.Equal(c.quotas, []int64{1 << 30}) {
			t.Errorf("%q: %+v", args, c)
		}
	}
	c, err := parseMount([]string{"src", "--", "--dir"})
	if err != nil || c.dir != "--dir" {
		t.Errorf("a directory that begins with dashes: %+v, %v", c, err)
	}
}

func TestTiersAndQuotasGoTogether(t *testing.T) {
	c, err := parseMount([]string{"s", "d", "--tier-dir", "/a", "--quota", "1Gi", "--tier-dir", "/b", "--quota", "2Gi"})
	if err != nil {
		t.Fatal(err)
	}
	levels, err := c.levels()
	if err != nil || len(levels) != 2 || levels[0].Dir != "/a" || levels[0].Quota != 1<<30 ||
		levels[1].Quota != 2<<30 || levels[1].Low != 0.7 {
		t.Errorf("%+v, %v", levels, err)
	}
	c, err = parseMount([]string{"s", "d", "--tier-dir", t.TempDir() + "/not/yet"})
	if err != nil {
		t.Fatal(err)
	}
	if levels, err = c.levels(); err != nil || levels[0].Quota <= 0 || levels[0].Quota > defaultQuota {
		t.Errorf("default quota: %+v, %v", levels, err)
	}
}

func TestOptionsRepeatAndKeepEqualSigns(t *testing.T) {
	c, err := parseMount([]string{"s", "d", "--option", "endpoint=http://h/?a=b", "--option", "region="})
	if err != nil || c.options["endpoint"] != "http://h/?a=b" || len(c.options) != 2 {
		t.Errorf("%+v, %v", c, err)
	}
	_, err = parseMount([]string{"s", "d", "--option", "s3cr3t"})
	if err == nil || strings.Contains(err.Error(), "s3cr3t") {
		t.Errorf("what could be a secret is repeated: %v", err)
	}
}

func TestEveryCommandHasHelp(t *testing.T) {
	for _, c := range newMillrace().Commands() {
		if c.DisableFlagParsing {
			continue // It is a program of its own, which this process would become: TestProgramsBeside.
		}
		for _, args := range [][]string{{c.Name(), "--help"}, {c.Name(), "-h"}, {"help", c.Name()}} {
			out := said(t, args...)
			if !strings.Contains(out, "Usage: millrace") {
				t.Errorf("%q prints %q", args, out)
			}
			for line := range strings.Lines(out) {
				if len(line) > 161 {
					t.Errorf("%q: line of %d columns: %s", args, len(line), line)
				}
			}
		}
	}
}

// said is what millrace prints for args.
func said(t *testing.T, args ...string) string {
	t.Helper()
	var out strings.Builder
	if err := command.Execute(newMillrace().Command, args, &out); err != nil {
		t.Errorf("%q: %v", args, err)
	}
	return out.String()
}

// TestHelpHasGroups looks for the headings, each with what belongs there.
func TestHelpHasGroups(t *testing.T) {
	for _, args := range [][]string{{"help"}, {"--help"}, {"-h"}, {"help", "--help"}, {"help", "help"}} {
		if out := said(t, args...); !inOrder(out, "Usage: millrace COMMAND", "Mounts:", "  mount ", "Looking:",
			"  top ", "Kubernetes:", "  controller ", "Other:", "  completion ", "Exit codes") {
			t.Errorf("%q prints %q", args, out)
		}
	}
	out := said(t, "mount", "--help")
	if !inOrder(out, "The source:", "--options-file FILE", "What is kept of it:", "--quota SIZE", "The directory:",
		"--dir-mode MODE", "(default 0555)", "The process:", "--log-file FILE") {
		t.Errorf("mount --help prints %q", out)
	}
	if out := said(t, "top", "--help"); !inOrder(out, "-o, --output FORMAT", "(default text)", "-n, --count COUNT") {
		t.Errorf("top --help prints %q", out)
	}
}

// inOrder reports whether text has all parts, one after the other.
func inOrder(text string, parts ...string) bool {
	for _, p := range parts {
		_, after, found := strings.Cut(text, p)
		if !found {
			return false
		}
		text = after
	}
	return true
}

// TestWrongArguments has what is wrong said in one sentence that names the flag, the value and what is accepted.
func TestWrongArguments(t *testing.T) {
	for want, args := range map[string][]string{
		"a command is missing; see millrace " +
			"help": {},
		`there is no command "--quota"; see millrace help`: {"--quota", "1Gi", "mount"},
		"there is no flag --no-such; see millrace mount " +
			"--help": {"mount", "--no-such"},
		"there is no flag --test.v; see millrace mount " +
			"--help": {
			"mount", "-test.v", "s",
			"d",
		},
		"there is no flag -x; see millrace top " +
			"--help": {"top", "-x"},
		"the flag --quota needs a value; see millrace mount " +
			"--help": {"mount", "s", "d", "-quota"},
		"the flag -o needs a value; see millrace version " +
			"--help": {"version", "-o"},
		`-o "yaml" is not one of text, json; see millrace version --help`:                                                            {"version", "--output=yaml"},
		`--allow-other "perhaps" is not true or false; see millrace mount --help`:                                                    {"mount", "--allow-other=perhaps"},
		`--high "2" is not a part of the quota: accepted is a number above 0 and at most 1, such as 0.95; see millrace mount --help`: {"mount", "-high", "2"},
		`completion takes the name of a shell, not "tcsh"; accepted are bash, zsh, fish; see millrace completion --help`:             {"completion", "tcsh"},
		"mount takes a SOURCE and a DIR, not 3 arguments; see millrace mount " +
			"--help": {"mount", "a", "b", "c"},
	} {
		err := command.Execute(newMillrace().Command, args, io.Discard)
		if err == nil || err.Error() != want || commandline.Code(err) != commandline.ExitUsage {
			t.Errorf("%q: exit %d, %v; want %q", args, commandline.Code(err), err, want)
		}
	}
}

// TestRefusals has what is misspelt told what is near, and a value that is not accepted what is.
func TestRefusals(t *testing.T) {
	for _, c := range []struct{ line, want string }{
		{"mont", `there is no command "mont", perhaps mount is meant; see millrace help`},
		{"help umount", `there is no command "umount", perhaps mount or unmount is meant; see millrace help`},
		{"stauts", `there is no command "stauts", perhaps status is meant; see millrace help`},
		{"xyz", `there is no command "xyz"; see millrace help`},
		{"mount -qouta 1Gi", "there is no flag --qouta, perhaps --quota is meant; see millrace mount --help"},
		{"mount --quota 99999999Ti", `--quota "99999999Ti" is too large: accepted are at most ` +
			"9223372036854775807 bytes, less than 8388608Ti; see millrace mount --help"},
		{"mount --quota 0", `--quota "0" is too small: accepted are sizes from 1 byte on, such as 2Gi; ` +
			`see millrace mount --help`},
		{"mount --revalidate 1d", `--revalidate "1d" is not a time: accepted are 0 and numbers with a unit ` +
			"such as 10s, 1m30s, at most 8760h; also with ,content after it, as in 1m,content; " +
			"see millrace mount --help"},
		{"mount s", "mount takes a SOURCE and a DIR, not 1 argument; see millrace mount --help"},
		{"top --socket=", `--socket "" is empty; accepted is any other PATH; see millrace top --help`},
		{"mount --option x", "--option is not in its form: accepted is NAME=VALUE, such as endpoint=https://host; " +
			"see millrace mount --help"},
		{"sweep a/b rel", `sweep "rel": accepted are absolute paths; see millrace sweep --help`},
		{"node --endpoint x", `--endpoint "x" is not a unix socket: accepted are unix:///path and /path; ` +
			`see millrace node --help`},
		{"node --health 0.0.0.0:1", `--health "0.0.0.0:1" is not an address of health: accepted are unix:///path, ` +
			"and a loopback address with a port such as 127.0.0.1:9808; see millrace node --help"},
	} {
		err := command.Execute(newMillrace().Command, strings.Fields(c.line), io.Discard)
		if err == nil || err.Error() != c.want || commandline.Code(err) != commandline.ExitUsage {
			t.Errorf("%s: exit %d, %v; want %s", c.line, commandline.Code(err), err, c.want)
		}
	}
}

// TestTierWithoutSpace has a tier in a file system that holds nothing refused for that.
func TestTierWithoutSpace(t *testing.T) {
	c, err := parseMount([]string{"s", "d", "--tier-dir", "/proc/tier"})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.levels()
	if err == nil || !strings.HasPrefix(err.Error(), "tier directory /proc/tier has no space: accepted ") {
		t.Error(err)
	}
}

// TestFlagsSayWhatTheyTake gives wrong values to every flag.
func TestFlagsSayWhatTheyTake(t *testing.T) {
	if refused := refusals.Check(t, newMillrace().Command); refused < 40 {
		t.Errorf("only %d flags refuse anything", refused)
	}
}

// TestOldSpellings has what the flag package took still taken.
func TestOldSpellings(t *testing.T) {
	for _, args := range [][]string{
		{"--version"},
		{"-version", "--o=text"},
		{"version", "--o", "text"},
		{"version", "-o=text"},
		{"version", "-output", "text"},
		{"version", "-o", "text", "--"},
	} {
		if out := said(t, args...); !strings.HasPrefix(out, "millrace ") {
			t.Errorf("%q prints %q", args, out)
		}
	}
	c, err := parseMount([]string{"-log-file", "-quota", "s", "d"})
	if err != nil || c.logFile != "-quota" || len(c.quotas) != 0 {
		t.Errorf("a value that looks like a flag: %+v, %v", c, err)
	}
}

// TestCompletion asks as the scripts of the shells do.
func TestCompletion(t *testing.T) {
	for want, args := range map[string][]string{
		"mount\tshow a remote source as a directory\n": {"mo"},
		"--quota\tSIZE of a tier directory":            {"mount", "--quo"},
		"json\n:4\n":                                   {"status", "-o", "js"},
		"debug\ninfo\nwarn\nerror\n:4\n":               {"mount", "--log-level", ""},
		":16\n":                                        {"mount", "--tier-dir", ""},
		"bash\nzsh\nfish\n:4\n":                        {"completion", ""},
		"unmount\tend a mount, also one whose process has gone": {"help", "un"},
	} {
		if out := said(t, append([]string{"__complete"}, args...)...); !strings.Contains(out, want) {
			t.Errorf("%q prints %q, want %q", args, out, want)
		}
	}
	for shell, want := range map[string]string{
		"bash": "complete -o default", "zsh": "#compdef millrace",
		"fish": "complete -c millrace",
	} {
		if out := said(t, "completion", shell); !strings.Contains(out, want) {
			t.Errorf("%s: %q is not there", shell, want)
		}
	}
}
