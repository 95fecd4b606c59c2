package commandline

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Flags is a flag.FlagSet of one subcommand that also takes flags after the positional
// arguments, answers with errors instead of printing, and prints --help by itself.
type Flags struct {
	*flag.FlagSet
	synopsis string
	about    string
	out      io.Writer
	// bad is what the value that stopped the parsing had to say.
	bad error
}

// NewFlags makes the flags of the command name; synopsis shows its positional arguments,
// about is a paragraph for its help, which is printed on out.
func NewFlags(name, synopsis, about string, out io.Writer) *Flags {
	f := &Flags{FlagSet: flag.NewFlagSet(name, flag.ContinueOnError), synopsis: synopsis, about: about, out: out}
	f.SetOutput(io.Discard)
	f.Usage = func() {}
	return f
}

// Positional reads args and returns the positional ones. "--" ends the flags.
func (f *Flags) Positional(args []string) ([]string, error) {
	var positional []string
	for {
		if err := f.Parse(args); err != nil {
			return nil, f.explain(err)
		}
		rest := f.Args()
		if n := len(args) - len(rest); n > 0 && args[n-1] == "--" || len(rest) == 0 {
			return append(positional, rest...), nil
		}
		positional, args = append(positional, rest[0]), rest[1:]
	}
}

// explain turns an error of the flag package into ours. flag.ErrHelp stays, its help printed.
func (f *Flags) explain(err error) error {
	switch text := err.Error(); {
	case errors.Is(err, flag.ErrHelp):
		f.printHelp()
		return err
	case f.bad != nil:
		return f.Wrong("%w", f.bad)
	case strings.HasPrefix(text, "flag provided but not defined: "):
		name := strings.TrimLeft(strings.TrimPrefix(text, "flag provided but not defined: "), "-")
		return f.Wrong("there is no flag %s", Dashed(name))
	case strings.HasPrefix(text, "flag needs an argument: "):
		name := strings.TrimLeft(strings.TrimPrefix(text, "flag needs an argument: "), "-")
		return f.Wrong("the flag %s needs a value", Dashed(name))
	default:
		return f.Wrong("%w", err)
	}
}

// Wrong is an error of usage of this command.
func (f *Flags) Wrong(format string, args ...any) error {
	return &UsageError{f.Name(), fmt.Errorf(format, args...)}
}

func (f *Flags) printHelp() {
	_, _ = fmt.Fprintf(f.out, "Usage: millrace %s %s\n\n%s\n", f.Name(), f.synopsis, f.about)
	first := true
	f.VisitAll(func(fl *flag.Flag) {
		if first {
			_, _ = fmt.Fprintf(f.out, "\nFlags:\n")
			first = false
		}
		name, usage := flag.UnquoteUsage(fl)
		if v, ok := fl.Value.(*value); ok && v.isBool {
			name = ""
		}
		head := strings.TrimSpace(Dashed(fl.Name) + " " + name)
		if def := fl.DefValue; def != "" && def != "false" {
			usage += " (default " + def + ")"
		}
		_, _ = fmt.Fprintf(f.out, "  %-24s %s\n", head, usage)
	})
}

// Dashed is a flag as people write it: -o, --quota.
func Dashed(name string) string {
	if len(name) == 1 {
		return "-" + name
	}
	return "--" + name
}

// value is a flag.Value whose errors name the flag, the value and what is accepted.
type value struct {
	owner  *Flags
	name   string
	show   string
	isBool bool
	hide   bool
	set    func(string) error
}

func (v *value) String() string   { return v.show }
func (v *value) IsBoolFlag() bool { return v.isBool }

func (v *value) Set(s string) error {
	if err := v.set(s); err != nil {
		shown := fmt.Sprintf("%s %q", Dashed(v.name), s)
		if v.hide {
			shown = Dashed(v.name)
		}
		v.owner.bad = fmt.Errorf("%s is %w", shown, err)
		return v.owner.bad
	}
	return nil
}

// Define adds a flag: show is its default as the help shows it, set takes a value or says
// in a sentence's second half ("not a size: ...") why not.
func (f *Flags) Define(name, usage, show string, set func(string) error) {
	f.Var(&value{owner: f, name: name, show: show, set: set}, name, usage)
}

// Toggle adds a flag that is on or off.
func (f *Flags) Toggle(into *bool, name, usage string) {
	set := func(s string) error {
		switch s {
		case "true":
			*into = true
		case "false":
			*into = false
		default:
			return errors.New("not true or false")
		}
		return nil
	}
	f.Var(&value{owner: f, name: name, isBool: true, set: set}, name, usage)
}

// Text adds a flag that takes any text but "".
func (f *Flags) Text(into *string, name, usage string) {
	f.Define(name, usage, *into, func(s string) error {
		if s == "" {
			return errors.New("empty")
		}
		*into = s
		return nil
	})
}

// Choice adds a flag that takes one of several words.
func (f *Flags) Choice(into *string, name, usage string, words ...string) {
	f.Define(name, usage, *into, func(s string) error {
		if !slices.Contains(words, s) {
			return fmt.Errorf("not one of %s", strings.Join(words, ", "))
		}
		*into = s
		return nil
	})
}

// Parsed adds a flag whose value parse understands.
func Parsed[T any](f *Flags, into *T, name, usage, show string, parse func(string) (T, error)) {
	f.Define(name, usage, show, func(s string) error {
		v, err := parse(s)
		if err == nil {
			*into = v
		}
		return err
	})
}

// SourceOptions adds the flags for the options of a source.
func (f *Flags) SourceOptions(options map[string]string, file *string) {
	option := &value{owner: f, name: "option"}
	option.set = func(s string) error {
		name, val, ok := strings.Cut(s, "=")
		if !ok || name == "" {
			return errors.New("no name=value")
		}
		options[name] = val
		return nil
	}
	// What was given is not repeated in an error: it may be a secret.
	option.hide = true
	f.Var(option, "option", "`NAME=VALUE` of the source's rclone backend, such as endpoint=...; may be repeated")
	f.Text(file, "options-file", "`FILE` with NAME=VALUE lines, for options and secrets")
}
