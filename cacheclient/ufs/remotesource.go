package ufs

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/rclone/rclone/fs"
	"github.com/rclone/rclone/fs/fspath"
)

// ownSources are the backends of rclone in whose place this package has a source of its own.
var ownSources = map[string]string{"http": "https://host/path/", "s3": "s3://bucket/prefix", "local": "/a/directory"}

// remoteKinds are the backends that a connection string may name. Another one is an import in remote.go away.
var remoteKinds = []string{"sftp", "webdav"}

// remoteRefused are the options of rclone's backends that are not for a source, and why. The user that names a source
// may be another than the one that runs the process, so that an option must not run a program.
var remoteRefused = map[string]string{ //nolint:gosec // Names of options, no secrets.
	"ssh": "it runs a program", "bearer_token_command": "it runs a program", "server_command": "it runs a program",
	"ask_password": "nobody is there to ask",
}

// parseRemote understands a connection string of rclone, such as :sftp,host=name:/path. Its errors do not
// repeat it, since it may have a secret.
func parseRemote(s string) (source, error) {
	parsed, err := fspath.Parse(s)
	if err != nil || parsed.Name == "" {
		return source{}, errors.New("a source that begins with a colon is a connection string of rclone, such as " +
			":sftp,host=name:/path; this one has no such form")
	}
	kind := strings.TrimPrefix(parsed.Name, ":")
	if own, ok := ownSources[kind]; ok {
		return source{}, fmt.Errorf("source \":%s\" is read without rclone; give it as %s", kind, own)
	}
	if !slices.Contains(remoteKinds, kind) {
		return source{}, fmt.Errorf("source \":%s\" names a backend of rclone that is not in this program; accepted "+
			"are %s", kind, strings.Join(remoteKinds, ", "))
	}
	backend, err := fs.Find(kind)
	if err != nil {
		return source{}, fmt.Errorf("rclone's %s backend: %w", kind, err)
	}
	src := source{
		scheme: schemeRemote, backend: backend, dir: strings.TrimSuffix(parsed.Path, "/"),
		options: parsed.Config, show: s,
	}
	if parsed.Path == "/" {
		src.dir = "/"
	}
	table := remoteTable(backend)
	for name, value := range parsed.Config {
		option := table.Get(name)
		switch u, err := url.Parse(value); {
		case option == nil:
			return source{}, fmt.Errorf("source \":%s\": %w", kind, unknownOption(src, name, table))
		case secret(option) && value != "":
			return source{}, fmt.Errorf("source \":%s\": %s is a secret and would show in process lists; put it into "+
				"the options file, or give the option %s=env:VARIABLE", kind, name, name)
		case err == nil && u.User != nil:
			return source{}, fmt.Errorf("source \":%s\": %w", kind, errSecretInURL)
		}
	}
	return src, nil
}

// remoteTable is what a backend of rclone accepts here.
func remoteTable(backend *fs.RegInfo) fs.Options {
	table := slices.DeleteFunc(slices.Clone(backend.Options), func(o fs.Option) bool {
		return remoteRefused[o.Name] != "" || strings.HasSuffix(o.Name, "sum_command")
	})
	for i := range table {
		// rclone hides them in what people post; they are no secret to users that may see the process.
		if name := table[i].Name; name == "host" || name == "user" {
			table[i].Sensitive = false
		}
	}
	for _, o := range tlsTable {
		if table.Get(o.Name) == nil {
			table = append(table, o)
		}
	}
	return table
}
