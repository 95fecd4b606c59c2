package command

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// ErrEmpty has a flag say that "" is no value, and what it takes.
var ErrEmpty = errors.New("empty")

// headingKey is the annotation of a flag that holds its heading in the help.
const headingKey = "heading"

// value is a pflag.Value whose errors name the flag, the value and what is accepted.
type value struct {
	flag *pflag.Flag
	// takes is the word by which the help calls the value.
	takes  string
	show   string
	secret bool
	set    func(string) error
}

func (v *value) String() string { return v.show }

// Type is the word for the value; pflag asks for it.
func (v *value) Type() string { return v.takes }

func (v *value) Set(s string) error {
	if err := v.set(s); err != nil {
		if errors.Is(err, ErrEmpty) {
			err = fmt.Errorf("%w; accepted is any other %s", err, cmp.Or(v.takes, "text"))
		}
		what := fmt.Sprintf("%s %q", shown(v.flag), s)
		if v.secret {
			what = shown(v.flag)
		}
		return fmt.Errorf("%s is %w", what, err)
	}
	return nil
}

// add adds a flag, whose value is completed to one of words where there are some. A name "count,n" has a letter too.
// The word in usage between backquotes stands for the value; without one the flag is on or off.
func (c *Command) add(v *value, name, usage string, words ...string) *pflag.Flag {
	name, letter, _ := strings.Cut(name, ",")
	if _, after, quoted := strings.Cut(usage, "`"); quoted {
		v.takes, _, _ = strings.Cut(after, "`")
	}
	v.flag = c.Flags().VarPF(v, name, letter, strings.ReplaceAll(usage, "`", ""))
	if c.heading != "" {
		v.flag.Annotations = map[string][]string{headingKey: {c.heading}}
	}
	// Both fail only for a flag that there is not.
	switch v.takes {
	case "DIR":
		_ = c.MarkFlagDirname(name)
	case "FILE", "PATH":
	default:
		_ = c.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp))
	}
	return v.flag
}

// Define adds a flag: show is its default as the help shows it, set takes a value or says
// in a sentence's second half ("not a size: ...") why not.
func (c *Command) Define(name, usage, show string, set func(string) error) {
	c.add(&value{show: show, set: set}, name, usage)
}

// Toggle adds a flag that is on or off.
func (c *Command) Toggle(into *bool, name, usage string) {
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
	c.add(&value{set: set}, name, usage).NoOptDefVal = "true"
}

// Text adds a flag that takes any text but "".
func (c *Command) Text(into *string, name, usage string) {
	c.Define(name, usage, *into, func(s string) error {
		if s == "" {
			return ErrEmpty
		}
		*into = s
		return nil
	})
}

// Choice adds a flag that takes one of several words.
func (c *Command) Choice(into *string, name, usage string, words ...string) {
	set := func(s string) error {
		if !slices.Contains(words, s) {
			return fmt.Errorf("not one of %s", strings.Join(words, ", "))
		}
		*into = s
		return nil
	}
	c.add(&value{show: *into, set: set}, name, usage, words...)
}

// Parsed adds a flag whose value parse understands.
func Parsed[T any](c *Command, into *T, name, usage, show string, parse func(string) (T, error)) {
	c.Define(name, usage, show, func(s string) error {
		v, err := parse(s)
		if err == nil {
			*into = v
		}
		return err
	})
}

// SourceOptions adds the flags for the options of a source.
func (c *Command) SourceOptions(options map[string]string, file *string) {
	set := func(s string) error {
		name, val, ok := strings.Cut(s, "=")
		if !ok || name == "" {
			return errors.New("not in its form: accepted is NAME=VALUE, such as endpoint=https://host")
		}
		options[name] = val
		return nil
	}
	// What was given is not repeated in an error: it may be a secret.
	c.add(&value{secret: true, set: set}, "option",
		"`NAME=VALUE` of the source's rclone backend, such as endpoint=...; may be repeated")
	c.Text(file, "options-file", "`FILE` with NAME=VALUE lines, for options and secrets")
}
