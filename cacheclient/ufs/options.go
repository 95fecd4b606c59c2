package ufs

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	_ "github.com/rclone/rclone/backend/s3" // registers s3 and its options
	"github.com/rclone/rclone/fs"
	"github.com/rclone/rclone/fs/config/configmap"
	"github.com/rclone/rclone/fs/config/configstruct"

	"millrace.io/millrace/cacheclient/network"
)

// Options say how to reach a source.
type Options struct {
	// Values are options by rclone's names for the source's backend. A value env:NAME is read
	// from the environment variable NAME. One that is a secret must be.
	Values map[string]string
	// Secrets are more options, which came another way than by arguments and may be secrets. They win over Values.
	Secrets map[string]string
	// File is the path of a file of more options, one name = value a line, "" for none.
	// Secrets belong there, and then no other user may read it. Values win over it.
	File string
	// ResponseTimeout is the longest wait for a connection, for the head of a response, and between
	// bytes of a body; 10 s if 0.
	ResponseTimeout time.Duration
	// MaxConns is the largest number of connections to one host for Stat and Open, at least 2; 16 if
	// 0. A listing has a connection of its own while it is read.
	MaxConns int
	// Deferred has Open send nothing to the source: whether it is there and answers turns out with the first
	// request, which fails as requests do, with ErrUnavailable where no server answers.
	Deferred bool
	// Within are the directories that a local source must be in, or be; any place will do if there are none. Other
	// sources have no use for it.
	Within []string
	// FollowLinks has a local source show what its symbolic links lead to, wherever that is. Without, what leads out
	// of the source's directory is not shown, nor are absolute links. It cannot be had with Within.
	FollowLinks bool
	// Remotes permits connection strings of rclone.
	Remotes bool
	// Left reports whether a directory on a device is left out of a local source: a mount that may show the source again.
	// It is asked about devices other than the source's own; nil leaves none out.
	Left func(device uint64) bool
	// Network has what the operator says of all sources, where the options of this one say nothing.
	Network network.Settings
	// Log takes what is noticed of the source, once each; the default logger if nil.
	Log *slog.Logger
}

const (
	defaultResponseTimeout = 10 * time.Second
	defaultMaxConns        = 16
)

// defaults fills in what the caller left open.
func (o Options) defaults() Options {
	if o.ResponseTimeout <= 0 {
		o.ResponseTimeout = defaultResponseTimeout
	}
	if o.MaxConns <= 0 {
		o.MaxConns = defaultMaxConns
	}
	o.MaxConns = max(o.MaxConns, 2)
	if o.Log == nil {
		o.Log = slog.Default()
	}
	return o
}

// httpOptions are those of rclone's http backend that can be honoured, and basic auth.
type httpOptions struct {
	Headers  fs.CommaSepList `config:"headers"`
	NoSlash  bool            `config:"no_slash"`
	NoHead   bool            `config:"no_head"`
	NoEscape bool            `config:"no_escape"`
	User     string          `config:"user"`
	Pass     string          `config:"pass"`
	Validate string          `config:"validate"`
}

// localOptions are those of rclone's local backend that matter to a reader.
type localOptions struct {
	CopyLinks      bool `config:"copy_links"`
	SkipLinks      bool `config:"skip_links"`
	SkipSpecials   bool `config:"skip_specials"`
	OneFileSystem  bool `config:"one_file_system"`
	NoCheckUpdated bool `config:"no_check_updated"`
	// Validate is our own: what tells versions apart.
	Validate string `config:"validate"`
}

var httpTable = append(fs.Options{
	// A header may be a cookie or a token, and which is one cannot be told.
	{Name: "headers", Default: fs.CommaSepList{}, Sensitive: true},
	{Name: "no_slash", Default: false},
	{Name: "no_head", Default: false},
	{Name: "no_escape", Default: false},
	{Name: "user", Default: ""},
	{Name: "pass", Default: "", IsPassword: true},
	{Name: "validate", Default: "auto"},
}, networkTable...)

// localTable follows links, unlike rclone: a mount has no links, and a reader wants what is there.
var localTable = fs.Options{
	{Name: "copy_links", Default: true},
	{Name: "skip_links", Default: false},
	{Name: "skip_specials", Default: false},
	{Name: "one_file_system", Default: false},
	{Name: "no_check_updated", Default: false},
	{Name: "validate", Default: validateAll},
}

// s3Refused are the options of rclone's s3 backend that a version or a range of a file, or a
// signed URL, cannot be had with, and why.
var s3Refused = map[string]string{
	"decompress":              "the size of a file would be unknown",
	"versions":                "only present versions are read",
	"version_at":              "only present versions are read",
	"version_deleted":         "only present versions are read",
	"sse_customer_algorithm":  "it cannot be signed into a URL",
	"sse_customer_key":        "it cannot be signed into a URL",
	"sse_customer_key_base64": "it cannot be signed into a URL",
	"sse_customer_key_md5":    "it cannot be signed into a URL",
	"v2_auth":                 "URLs are signed by version 4",
	"download_url":            "give it as an https:// source",
}

// optionTable is what a kind of source accepts.
func optionTable(src source) (fs.Options, error) {
	switch src.scheme {
	case schemeHTTP:
		return httpTable, nil
	case schemeLocal:
		return localTable, nil
	case schemeRemote:
		return remoteTable(src.backend), nil
	}
	backend, err := fs.Find("s3")
	if err != nil {
		return nil, fmt.Errorf("rclone's s3 backend: %w", err)
	}
	table := slices.DeleteFunc(slices.Clone(backend.Options), func(o fs.Option) bool {
		_, refused := s3Refused[o.Name]
		return refused
	})
	return append(table, networkTable...), nil
}

// resolve gathers the options from the values and the file, checks their names, reads the
// environment, and returns the value of every option of the source.
func (o Options) resolve(ctx context.Context, src source) (configmap.Simple, error) {
	table, err := optionTable(src)
	if err != nil {
		return nil, err
	}
	given := configmap.Simple{}
	if o.File != "" {
		if given, err = readOptionsFile(ctx, o.File, table); err != nil {
			return nil, err
		}
	}
	// They were checked with the source.
	maps.Copy(given, src.options)
	for name, value := range o.Values {
		option := table.Get(name)
		if option == nil {
			return nil, unknownOption(src, name, table)
		}
		if secretValue(option, value) && value != "" && !strings.HasPrefix(value, envPrefix) {
			return nil, fmt.Errorf("option %s is a secret and arguments show in process lists; put it into the "+
				"options file, or give %s=env:VARIABLE", name, name)
		}
		given[name] = value
	}
	for name, value := range o.Secrets {
		if table.Get(name) == nil {
			return nil, unknownOption(src, name, table)
		}
		given[name] = value
	}
	all := configmap.Simple{}
	for i := range table {
		option := &fs.Option{Name: table[i].Name, Default: table[i].Default}
		all[option.Name] = option.String()
	}
	for name, value := range given {
		if table.Get(name) == nil {
			return nil, unknownOption(src, name, table)
		}
		if all[name], err = FromEnvironment(name, value); err != nil {
			return nil, err
		}
		if all[name], err = checkNetwork(src, name, all[name]); err != nil {
			return nil, err
		}
		if err := checkType(table.Get(name), all[name]); err != nil {
			return nil, err
		}
	}
	return all, nil
}

const envPrefix = "env:"

// FromEnvironment reads a value env:NAME of an option; other values stand for themselves.
func FromEnvironment(name, value string) (string, error) {
	variable, found := strings.CutPrefix(value, envPrefix)
	if !found {
		return value, nil
	}
	value, found = os.LookupEnv(variable)
	if !found {
		return "", fmt.Errorf("option %s names the environment variable %q, which is not set", name, variable)
	}
	return value, nil
}

// checkType reports whether the value fits; a secret is not repeated.
func checkType(option *fs.Option, value string) error {
	if option.Default == nil {
		return nil
	}
	if _, err := configstruct.StringToInterface(option.Default, value); err != nil {
		shown := strconv.Quote(value)
		if secret(option) {
			shown = "its value"
		}
		return fmt.Errorf("option %s: %s is no %s", option.Name, shown, typeName(option))
	}
	return nil
}

func typeName(option *fs.Option) string {
	switch option.Default.(type) {
	case bool, fs.Tristate:
		return "boolean, which is true or false"
	}
	return option.Type()
}

func secret(option *fs.Option) bool { return option.IsPassword || option.Sensitive }

func unknownOption(src source, name string, table fs.Options) error {
	if why, refused := s3Refused[name]; refused && src.scheme == schemeS3 {
		return fmt.Errorf("option %s is not supported: %s", name, why)
	}
	if why, refused := remoteRefused[name]; refused && src.scheme == schemeRemote {
		return fmt.Errorf("option %s is not supported: %s", name, why)
	}
	names := make([]string, 0, len(table))
	for i := range table {
		names = append(names, table[i].Name)
	}
	slices.Sort(names)
	return fmt.Errorf("option %q is not known to %s sources; accepted are %s", name, src.kind(),
		strings.Join(slices.Compact(names), ", "))
}
