package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"millrace.io/millrace/cmd/command"
	"millrace.io/millrace/cmd/commandline"
)

const doctorAbout = `Checks what millrace needs of this machine and of this user: the kernel, FUSE, capabilities, limits, the
tier directory, the mounts and their sockets; in the container of a node's driver or agent, what that
process needs and was told. Each line is ok, warn (slower than it could be, or at
risk) or fail (does not work), with what is, and for the latter two the command that mends it. It
changes nothing. The exit code is 1 if anything fails.`

// verdict is how a check came out.
type verdict string

const (
	verdictOK   verdict = "ok"
	verdictWarn verdict = "warn"
	verdictFail verdict = "fail"
)

// finding is the outcome of a check. It is also an element of `millrace doctor -o json`.
type finding struct {
	Check  string  `json:"check"`
	Result verdict `json:"result"`
	// Found is what is, in a sentence.
	Found string `json:"found"`
	// Mend is the command that mends it, "" where all is well.
	Mend string `json:"mend,omitempty"`
}

func fine(check, format string, args ...any) finding {
	return finding{check, verdictOK, fmt.Sprintf(format, args...), ""}
}

func warn(check, mend, format string, args ...any) finding {
	return finding{check, verdictWarn, fmt.Sprintf(format, args...), mend}
}

func bad(check, mend, format string, args ...any) finding {
	return finding{check, verdictFail, fmt.Sprintf(format, args...), mend}
}

func doctorCommand() *command.Command {
	f := command.New("doctor", "[-o text|json] [--tier-dir DIR] [--socket PATH]",
		"check this machine, and say what mends what is wrong", doctorAbout)
	format, socket, tier := "", "", defaultTierRoot()
	f.Format(&format)
	socketFlag(f, &socket)
	f.Text(&tier, "tier-dir", "tier `DIR` to check")
	f.ValidArgsFunction = cobra.NoFileCompletions
	f.Runs(func(rest []string, out io.Writer) error {
		if dir := os.Getenv(askVar); dir != "" {
			return answerFor(dir, out)
		}
		if len(rest) > 0 {
			return f.Wrong("doctor takes no arguments, not %q", rest[0])
		}
		return examine(tier, socket, format, out)
	})
	return f
}

// examine makes all checks and shows what they found. It fails where one of them does.
func examine(tier, socket, format string, out io.Writer) error {
	findings, known := ownContainer().check()
	if !known {
		findings = append(checkSystem(), checkTier(tier))
		findings = append(findings, checkMounts(socket)...)
		findings = append(findings, checkHands(socket)...)
	}
	if err := commandline.PrintAs(format, out, findings,
		func() error { return writeFindings(out, findings) }); err != nil {
		return err
	}
	failed := 0
	for _, c := range findings {
		if c.Result == verdictFail {
			failed++
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d checks failed", failed, len(findings))
	}
	return nil
}

// writeFindings writes a line for each finding, and below it what mends it.
func writeFindings(out io.Writer, findings []finding) error {
	t := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	for _, c := range findings {
		_, _ = fmt.Fprintf(t, "%s\t%s\t%s\n", c.Result, c.Check, commandline.OneLine(c.Found))
		if c.Mend != "" {
			_, _ = fmt.Fprintf(t, "\t\t→ %s\n", commandline.OneLine(c.Mend))
		}
	}
	return t.Flush()
}

// quoted is an argument as a shell takes it.
func quoted(arg string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' ||
			strings.ContainsRune("/._-:+,@%", r)
	}
	if arg != "" && strings.IndexFunc(arg, func(r rune) bool { return !plain(r) }) < 0 {
		return arg
	}
	return "'" + strings.ReplaceAll(arg, "'", `'\''`) + "'"
}
