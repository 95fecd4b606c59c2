package command

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/pflag"
)

// dashes has long flags with a single dash, as in -quota 1Gi, understood: they are given a second one, before "--" and
// where they are no flag's value. A flag of one letter with two dashes loses one. D-008 says why.
func dashes(flags *pflag.FlagSet, args []string) []string {
	var read []string
	for i := 0; i < len(args); i++ {
		if args[i] == "--" {
			return append(read, args[i:]...)
		}
		body := strings.TrimPrefix(strings.TrimPrefix(args[i], "-"), "-")
		name, _, valued := strings.Cut(body, "=")
		if body == args[i] || name == "" || name[0] == '-' {
			read = append(read, args[i])
			continue
		}
		known := lookup(flags, name)
		switch {
		case known != nil && len(name) == 1:
			read = append(read, "-"+body)
		case known != nil, lookup(flags, name[:1]) == nil && len(name) > 1:
			read = append(read, "--"+body)
		default:
			read = append(read, args[i])
		}
		if known != nil && !valued && known.NoOptDefVal == "" && i+1 < len(args) {
			i++
			read = append(read, args[i])
		}
	}
	return read
}

// lookup is the flag of that name, or letter; nil where there is none.
func lookup(flags *pflag.FlagSet, name string) *pflag.Flag {
	if len(name) == 1 {
		return flags.ShorthandLookup(name)
	}
	return flags.Lookup(name)
}

// explain says in millrace's words what pflag found wrong.
func (c *Command) explain(err error) error {
	var value *pflag.InvalidValueError
	var unknown *pflag.NotExistError
	var missing *pflag.ValueRequiredError
	switch {
	case errors.As(err, &value):
		return c.Wrong("%w", value.Unwrap())
	case errors.As(err, &unknown):
		typed := Dashed(unknown.GetSpecifiedName())
		return c.Wrong("there is no flag %s%s", typed, hint(typed, flagNames(c.Command)))
	case errors.As(err, &missing):
		return c.Wrong("the flag %s needs a value", shown(missing.GetFlag()))
	default:
		return c.Wrong("%w", err)
	}
}

// Arguments counts arguments in words.
func Arguments(n int) string {
	if n == 1 {
		return "1 argument"
	}
	return fmt.Sprintf("%d arguments", n)
}

// Dashed is a flag as people write it: -o, --quota.
func Dashed(name string) string {
	if len(name) == 1 {
		return "-" + name
	}
	return "--" + name
}

// shown is how errors call a flag: by its letter where it has one.
func shown(flag *pflag.Flag) string {
	if flag.Shorthand != "" {
		return Dashed(flag.Shorthand)
	}
	return Dashed(flag.Name)
}
