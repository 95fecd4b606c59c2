package alluxio

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"millrace.io/millrace/cacheclient/ufs"
)

// Given is the options as a user gives them.
type Given struct {
	// Values came as arguments, Secrets another way; they may not say the same.
	Values, Secrets map[string]string
	// File is an options file, "" for none. Values and Secrets win over it.
	File string
}

// sourcePrefix begins the options that are for the source behind a mount, by their names there.
const sourcePrefix = "source_"

// option is one that Alluxio sources take.
type option struct {
	secret bool
	set    func(c *Config, value string) error
}

var options = map[string]option{
	"user":          {set: text(func(c *Config) *string { return &c.Security.User })},
	"impersonate":   {set: text(func(c *Config) *string { return &c.Security.Impersonate })},
	"password":      {secret: true, set: text(func(c *Config) *string { return &c.Security.Password })},
	"tls":           {set: yesNo(func(c *Config, v bool) { c.Security.TLS = v })},
	"ca_cert":       {set: text(func(c *Config) *string { return &c.Security.Authorities })},
	"short_circuit": {set: yesNo(func(c *Config, v bool) { c.NoShortCircuit = !v })},
	"passive_cache": {set: yesNo(func(c *Config, v bool) { c.PassiveCache = v })},
	"may_be_empty":  {set: yesNo(func(c *Config, v bool) { c.MayBeEmpty = v })},
	"workers_read":  {set: yesNo(func(c *Config, v bool) { c.WorkersRead = v })},
	"local_hosts": {set: func(c *Config, value string) error {
		c.LocalHosts = strings.FieldsFunc(value, func(r rune) bool { return r == ',' || r == ' ' })
		if len(c.LocalHosts) == 0 {
			return errors.New("names no host")
		}
		return nil
	}},
	"source": {set: func(c *Config, value string) error {
		if value == "" {
			return errors.New("is empty")
		}
		c.Sources = []Source{{URL: value}}
		return nil
	}},
}

func text(field func(*Config) *string) func(*Config, string) error {
	return func(c *Config, value string) error {
		*field(c) = value
		return nil
	}
}

func yesNo(set func(*Config, bool)) func(*Config, string) error {
	return func(c *Config, value string) error {
		v, err := strconv.ParseBool(value)
		if err != nil {
			return fmt.Errorf("is %q; accepted are true and false", value)
		}
		set(c, v)
		return nil
	}
}

// Apply takes the options into the configuration. Those that begin with source_ are for the source behind the mount,
// and are checked when that is opened. An error is one sentence and repeats no secret.
func (c *Config) Apply(ctx context.Context, g Given) error {
	all := make(map[string]string)
	fromFile := make(map[string]bool)
	if g.File != "" {
		read, err := ufs.ReadOptionsFile(ctx, g.File, func(name, _ string) bool { return isSecret(name) })
		if err != nil {
			return err
		}
		for name, value := range read {
			all[name], fromFile[name] = value, true
		}
	}
	for name, value := range g.Values {
		if options[name].secret && !strings.HasPrefix(value, "env:") {
			return fmt.Errorf("option %s is a secret and arguments show in process lists; put it into the options "+
				"file, or give %s=env:VARIABLE", name, name)
		}
		all[name] = value
		delete(fromFile, name)
	}
	for name, value := range g.Secrets {
		all[name], fromFile[name] = value, true
	}
	source := ufs.Options{Values: map[string]string{}, Secrets: map[string]string{}}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if rest, ok := strings.CutPrefix(name, sourcePrefix); ok && rest != "" {
			if fromFile[name] {
				source.Secrets[rest] = all[name]
			} else {
				source.Values[rest] = all[name]
			}
			continue
		}
		if err := c.set(name, all[name]); err != nil {
			return err
		}
	}
	c.SourceOptions.Values, c.SourceOptions.Secrets = source.Values, source.Secrets
	for i := range c.Sources {
		c.Sources[i].Options = c.SourceOptions
	}
	return nil
}

// set takes one option.
func (c *Config) set(name, value string) error {
	o, ok := options[name]
	if !ok {
		return fmt.Errorf("option %q is not known to alluxio sources; accepted are %s, and %sNAME for the options of "+
			"the source behind", name,
			strings.Join(slices.Sorted(maps.Keys(options)), ", "), sourcePrefix)
	}
	value, err := ufs.FromEnvironment(name, value)
	if err != nil {
		return err
	}
	if err := o.set(c, value); err != nil {
		return fmt.Errorf("option %s %w", name, err)
	}
	return nil
}

// isSecret reports whether an option may be a secret; of those for the source it is not known here which are.
func isSecret(name string) bool {
	return options[name].secret || strings.HasPrefix(name, sourcePrefix)
}
