package driver

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"

	"millrace.io/millrace/fuse/handover"
)

// attributes is what the parameters of a StorageClass, or the attributes of a volume, say. Where a field has its
// zero value nothing was said.
type attributes struct {
	Source  string
	Dataset string

	TierDir   string
	Quota     int64
	High, Low float64

	Connections         int
	Timeout, Revalidate time.Duration
	FileMode, DirMode   uint32
	Passthrough         string
	Inode32             string

	Options map[string]string
}

// attribute is a key of volume_context and of parameters.
type attribute struct {
	name string
	// accepted ends the sentence about a value that is not.
	accepted string
	// set reports whether the value is accepted; show is the canonical text, "" where nothing was said.
	set  func(a *attributes, value string) bool
	show func(a *attributes) string
}

// optionPrefix begins the keys whose rest is the name of an option of the source's backend.
const optionPrefix = "option."

// theirs are the keys that the orchestrator adds.
var theirs = struct{ prefix, identity string }{"csi.storage.k8s.io/", "storage.kubernetes.io/csiProvisionerIdentity"}

// ephemeralKey is how kubelet marks a volume that is part of a pod.
const ephemeralKey = "csi.storage.k8s.io/ephemeral"

// shortest stands for 0 in a revalidate of 0, since there 0 stands for the default.
const shortest = time.Nanosecond

// longest bounds times.
const longest = 365 * 24 * time.Hour

// mostConnections bounds connections.
const mostConnections = 1024

// table is all attributes but the options. Every key is spelled here, and nowhere else.
var table = []attribute{
	{
		"source", "a URL such as https://host/path/, s3://bucket/prefix or alluxio://master:19998,master:19998/path " +
			"without user, password or query, or the absolute path of a directory that the operator allows",
		func(a *attributes, s string) bool { a.Source = s; return sourceFits(s) },
		func(a *attributes) string { return a.Source },
	},
	{
		"dataset", "the namespace and the name of a Dataset, such as default/weather",
		func(a *attributes, s string) bool { a.Dataset = s; return datasetPattern().MatchString(s) },
		func(a *attributes) string { return a.Dataset },
	},
	{
		"tierDir", "the absolute path of a directory that the operator allows",
		func(a *attributes, s string) bool { a.TierDir = s; return strings.HasPrefix(s, "/") && printable(s) },
		func(a *attributes) string { return a.TierDir },
	},
	{
		"quota", "a quantity of bytes above 0 such as 2Gi",
		func(a *attributes, s string) (ok bool) { a.Quota, ok = parseQuantity(s); return ok },
		func(a *attributes) string { return decimal(a.Quota) },
	},
	{
		"high", "a number above 0 and at most 1, such as 0.95",
		func(a *attributes, s string) (ok bool) { a.High, ok = parseRatio(s); return ok },
		func(a *attributes) string { return ratio(a.High) },
	},
	{
		"low", "a number above 0 and at most 1, such as 0.7",
		func(a *attributes, s string) (ok bool) { a.Low, ok = parseRatio(s); return ok },
		func(a *attributes) string { return ratio(a.Low) },
	},
	{
		"connections", "a whole number from 1 to 1024",
		func(a *attributes, s string) bool {
			n, err := strconv.Atoi(s)
			a.Connections = n
			return err == nil && n >= 1 && n <= mostConnections
		},
		func(a *attributes) string { return decimal(int64(a.Connections)) },
	},
	{
		"timeout", "a time above 0 such as 500ms or 10s, at most 8760h",
		func(a *attributes, s string) bool {
			d, err := time.ParseDuration(s)
			a.Timeout = d
			return err == nil && d > 0 && d <= longest
		},
		func(a *attributes) string { return duration(a.Timeout) },
	},
	{
		"revalidate", "0, or a time such as 10s or 1m30s, at most 8760h",
		func(a *attributes, s string) bool {
			d, err := time.ParseDuration(s)
			a.Revalidate = max(d, shortest)
			return err == nil && d >= 0 && d <= longest
		},
		func(a *attributes) string { return duration(a.Revalidate) },
	},
	{
		"passthrough", "true or false",
		func(a *attributes, s string) bool { a.Passthrough = s; return s == "true" || s == "false" },
		func(a *attributes) string { return a.Passthrough },
	},
	{
		"inode32", "true or false",
		func(a *attributes, s string) bool { a.Inode32 = s; return s == "true" || s == "false" },
		func(a *attributes) string { return a.Inode32 },
	},
	{
		"fileMode", "octal permission bits from 0001 to 0777, such as 0444",
		func(a *attributes, s string) (ok bool) { a.FileMode, ok = parseMode(s); return ok && a.FileMode != 0 },
		func(a *attributes) string { return octal(a.FileMode) },
	},
	{
		"dirMode", "octal permission bits from 0001 to 0777, such as 0555",
		func(a *attributes, s string) (ok bool) { a.DirMode, ok = parseMode(s); return ok && a.DirMode != 0 },
		func(a *attributes) string { return octal(a.DirMode) },
	},
}

// parseAttributes reads the parameters of a StorageClass or the attributes of a volume. An error is a sentence
// that names the key, the value and what is accepted; the values of options are not repeated.
func parseAttributes(values map[string]string) (attributes, error) {
	a := attributes{}
	for _, key := range slices.Sorted(maps.Keys(values)) {
		value := values[key]
		if option, found := strings.CutPrefix(key, optionPrefix); found {
			option, value = optionOf(option, value)
			if err := checkOption(option, value); err != nil {
				return attributes{}, err
			}
			if isProxy(option) && strings.Contains(value, "@") {
				return attributes{}, fmt.Errorf("option %s has a user or a password; accepted as an attribute is a "+
					"proxy without, else give it in the volume's Secret", option)
			}
			if a.Options == nil {
				a.Options = make(map[string]string)
			}
			a.Options[option] = value
			continue
		}
		if strings.HasPrefix(key, theirs.prefix) || key == theirs.identity {
			continue
		}
		i := slices.IndexFunc(table, func(t attribute) bool { return t.name == key })
		if i < 0 {
			return attributes{}, fmt.Errorf("attribute %q is not known; accepted are %s and %sNAME", key,
				strings.Join(attributeNames(), ", "), optionPrefix)
		}
		if !table[i].set(&a, value) {
			return attributes{}, fmt.Errorf("attribute %s %sis not accepted; accepted is %s", key, shown(key, value),
				table[i].accepted)
		}
	}
	switch {
	case a.Source == "" && a.Dataset == "":
		return attributes{}, errors.New("attribute source is missing; a volume needs source or dataset")
	case a.Source != "" && a.Dataset != "":
		return attributes{}, fmt.Errorf("attributes source and dataset %q are given both; accepted is one of them",
			a.Dataset)
	case a.High != 0 && a.Low >= a.High:
		return attributes{}, fmt.Errorf("attribute low %q is not accepted; accepted is less than high, which is %v",
			values["low"], a.High)
	}
	return a, nil
}

// shown is the value for an error, with a space after it. A source that is not accepted may hold a password, or a
// token.
func shown(key, value string) string {
	if key == "source" && strings.ContainsAny(value, "@?#") {
		return ""
	}
	return strconv.Quote(value) + " "
}

// attributeNames are the keys of the table.
func attributeNames() []string {
	names := make([]string, len(table))
	for i := range table {
		names[i] = table[i].name
	}
	return names
}

// context is the volume_context that parseAttributes reads as the same attributes.
func (a *attributes) context() map[string]string {
	values := make(map[string]string)
	for i := range table {
		if text := table[i].show(a); text != "" {
			values[table[i].name] = text
		}
	}
	for name, value := range a.Options {
		values[optionPrefix+name] = value
	}
	return values
}

// volume is the description of a session that shows the attributes' source on the directory dir.
func (a *attributes) volume(id, dir string, m mountSettings, given map[string]string) (handover.Volume, error) {
	var secrets map[string]string
	for _, key := range slices.Sorted(maps.Keys(given)) {
		name, value := optionOf(key, given[key])
		if secrets == nil {
			secrets = make(map[string]string, len(given))
		}
		secrets[name] = value
		if err := checkOption(name, value); err != nil {
			return handover.Volume{}, fmt.Errorf("secret: %w", err)
		}
		if _, twice := a.Options[name]; twice {
			return handover.Volume{},
				fmt.Errorf("option %s is given as an attribute and in the secret; accepted is one of them", name)
		}
	}
	v := handover.Volume{
		ID: id, Dir: dir, Source: a.Source, Options: a.Options, Secrets: secrets,
		TierDir: a.TierDir, Quota: a.Quota, High: a.High, Low: a.Low,
		Connections: a.Connections, Timeout: a.Timeout, Revalidate: a.Revalidate,
		FileMode: firstOf(a.FileMode, m.fileMode), DirMode: firstOf(a.DirMode, m.dirMode),
		UID: m.uid, GID: m.gid, NoPassthrough: a.Passthrough == "false", Inode32: a.Inode32 == "true",
	}
	return v, v.Check()
}

// firstOf is the first mode that was given.
func firstOf(modes ...uint32) uint32 {
	for _, m := range modes {
		if m != 0 {
			return m
		}
	}
	return 0
}

var (
	datasetPattern  = compiled(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?/[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$`)
	optionPattern   = compiled(`^[a-z0-9_]{1,128}$`)
	quantityPattern = compiled(`^[0-9]{1,19}(\.[0-9]{1,9})?([kMGTPE]|[KMGTPE]i|[eE][0-9]{1,2})?$`)
	ratioPattern    = compiled(`^(0|1)?(\.[0-9]{1,12})?$`)
)

// compiled compiles a pattern when it is used first: every process that has the driver in it starts sooner for that.
func compiled(pattern string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(pattern) })
}

// checkOption checks the name of an option of a backend. Which of them the source takes, and which values, the
// agent knows.
func checkOption(name, value string) error {
	if !optionPattern().MatchString(name) {
		return fmt.Errorf("option name %q is not accepted; accepted are lower-case letters, digits and underscores",
			name)
	}
	if strings.Contains(value, "\x00") || strings.ContainsAny(value, "\r\n") && !handover.IsPEM(value) {
		return fmt.Errorf("the value of option %s is not accepted; accepted is one line", name)
	}
	return nil
}

// optionOf is an option as it is meant: proxies may have the names of the environment, and editors and echo leave a
// line break at the end of a key of a Secret.
func optionOf(name, value string) (plainName, plainValue string) {
	if lower := strings.ToLower(name); isProxy(lower) {
		name = lower
	}
	return name, strings.TrimRight(value, "\r\n")
}

// isProxy reports whether an option is about proxies; in the environment it would have capitals.
func isProxy(name string) bool {
	return name == "https_proxy" || name == "http_proxy" || name == "no_proxy" || name == "proxy"
}

// sourceFits reports whether the source can be shown to all users, as mountinfo and logs do. Whether it is a source
// at all is checked by the policy, and by the agent.
func sourceFits(s string) bool {
	if s == "" || !printable(s) {
		return false
	}
	kind, rest, found := strings.Cut(s, "://")
	if !found || strings.HasPrefix(s, "/") {
		return strings.HasPrefix(s, "/")
	}
	authority, _, _ := strings.Cut(rest, "/")
	if strings.Contains(authority, "@") {
		return false
	}
	if strings.EqualFold(kind, "s3") || strings.EqualFold(kind, "alluxio") {
		// What follows is a bucket, or several masters: no URL's host.
		return true
	}
	_, err := url.Parse(s)
	return err == nil && !strings.ContainsAny(s, "?#")
}

// printable reports whether the text has no control characters.
func printable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r >= 0x7f && r < 0xa0 })
}

// parseQuantity reads a number of bytes above 0. The pattern keeps exponents away that take forever.
func parseQuantity(s string) (int64, bool) {
	if !quantityPattern().MatchString(s) {
		return 0, false
	}
	q, err := resource.ParseQuantity(s)
	if err != nil || q.CmpInt64(math.MaxInt64) > 0 {
		return 0, false
	}
	n := q.Value()
	return n, n > 0
}

// parseRatio reads a number above 0 and at most 1.
func parseRatio(s string) (float64, bool) {
	if !ratioPattern().MatchString(s) {
		return 0, false
	}
	v, err := strconv.ParseFloat(s, 64)
	return v, err == nil && v > 0 && v <= 1
}

// parseMode reads permission bits in octal.
func parseMode(s string) (uint32, bool) {
	v, err := strconv.ParseUint(s, 8, 32)
	return uint32(v), err == nil && v <= 0o777
}

// The canonical texts; "" for 0, which stands for nothing said.

func decimal(n int64) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatInt(n, 10)
}

func ratio(v float64) string {
	if v == 0 {
		return ""
	}
	return strconv.FormatFloat(v, 'f', -1, 64)
}

func duration(d time.Duration) string {
	if d == 0 {
		return ""
	}
	return d.String()
}

func octal(mode uint32) string {
	if mode == 0 {
		return ""
	}
	return fmt.Sprintf("%04o", mode)
}
