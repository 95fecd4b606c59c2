package handover

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Policy is what the operator of a node lets volumes name of that node. The author of a volume does not run
// the node, so both processes check it: the holder to refuse early, the agent because it opens the paths.
type Policy struct {
	// TierDirs are the directories that a volume's tier may be in or below.
	TierDirs []string
	// LocalSources are the directories that a volume may show, or show a part of; none where it is empty.
	LocalSources []string
}

// envPrefix makes a backend read an option from the environment of its process.
const envPrefix = "env:"

// hostOptions are the options of backends that read files, or credentials, of the node.
var hostOptions = []string{"env_auth", "profile", "shared_credentials_file"}

// pemOptions are those that are files of the node, or what is in such a file, which anybody may give.
var pemOptions = []string{"ca_cert", "client_cert", "client_key"}

// sourcePrefix begins the options of the source behind an Alluxio.
const sourcePrefix = "source_"

// IsPEM reports whether the value of an option is PEM.
func IsPEM(value string) bool { return strings.Contains(value, "-----BEGIN ") }

// Check tells in one sentence what the volume names that it may not. It looks symbolic links up, so that a link
// below an allowed directory leads nowhere else.
func (p Policy) Check(v Volume) error {
	if err := p.CheckResumed(v); err != nil {
		return err
	}
	if dir, local, err := localSource(v.Source); err == nil && local && holds(dir, v.Dir) {
		return fmt.Errorf("source %q holds %s, where the volume is mounted: it would show itself in itself", v.Source,
			v.Dir)
	}
	return nil
}

// CheckResumed is Check for a volume whose mount is there. Where it is mounted is not looked at: to refuse
// that now would only leave its users without a server.
func (p Policy) CheckResumed(v Volume) error {
	if v.TierDir != "" {
		if err := p.CheckTier(v.TierDir); err != nil {
			return err
		}
	}
	dir, local, err := localSource(v.Source)
	if err != nil {
		return err
	}
	if local {
		if err := allowed(dir, p.LocalSources); err != nil {
			return fmt.Errorf("source %q %w", v.Source, explain(err, p.LocalSources, "--allow-local"))
		}
	}
	for _, options := range []map[string]string{v.Options, v.Secrets} {
		for _, name := range slices.Sorted(maps.Keys(options)) {
			if err := checkOption(name, options[name]); err != nil {
				return err
			}
		}
	}
	return nil
}

// CheckTier is the part of Check that is about the directory of a tier.
func (p Policy) CheckTier(dir string) error {
	if err := allowed(dir, p.TierDirs); err != nil {
		return fmt.Errorf("tierDir %q %w", dir, explain(err, p.TierDirs, "--tier-dir"))
	}
	return nil
}

// checkOption refuses what reaches into the agent's process or its node. A value is never repeated: it may be a
// secret.
func checkOption(name, value string) error {
	plain := strings.TrimPrefix(name, sourcePrefix)
	switch {
	case slices.Contains(pemOptions, plain) && !IsPEM(value):
		return fmt.Errorf("option %s is no PEM; accepted is the text, which begins with -----BEGIN, and no path of "+
			"the node: give it as a key of a Secret", name)
	case slices.Contains(hostOptions, plain), strings.HasSuffix(name, "_file"), strings.HasSuffix(name, "_command"):
		return fmt.Errorf("option %s is refused: it names files or credentials of the node, which are not the volume's",
			name)
	case strings.HasPrefix(value, envPrefix):
		return fmt.Errorf("option %s is refused: a value %sNAME reads the environment of the agent, which is not the "+
			"volume's; put the value into a Secret", name, envPrefix)
	}
	return nil
}

// errOutside is a path that is in none of the allowed directories.
var errOutside = errors.New("is not allowed")

// allowed reports whether the path is in or below one of the directories, as it is written and as it resolves.
func allowed(path string, dirs []string) error {
	if !filepath.IsAbs(path) || filepath.Clean(path) != path {
		return errors.New("is not a clean absolute path")
	}
	resolved, err := resolve(path)
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		if !within(path, filepath.Clean(dir)) {
			continue
		}
		root, err := resolve(filepath.Clean(dir))
		if err == nil && within(resolved, root) {
			return nil
		}
	}
	return errOutside
}

// resolve follows the symbolic links of a path whose last parts need not exist.
func resolve(path string) (string, error) {
	missing := ""
	for at := path; ; at = filepath.Dir(at) {
		resolved, err := filepath.EvalSymlinks(at)
		if err == nil {
			return filepath.Join(resolved, missing), nil
		}
		// A link to nothing is itself there, and what it leads to may appear later.
		if !errors.Is(err, fs.ErrNotExist) || isLink(at) || at == "/" {
			return "", errors.New("cannot be looked up")
		}
		missing = filepath.Join(filepath.Base(at), missing)
	}
}

// isLink reports whether the path is a symbolic link.
func isLink(path string) bool {
	st, err := os.Lstat(path)
	return err == nil && st.Mode().Type() == fs.ModeSymlink
}

// holds reports whether a mount point is in or below a directory, as they are written or as they resolve. The mount
// point itself is not looked at: what is mounted there waits for its users.
func holds(dir, mount string) bool {
	if mount == "" {
		return false
	}
	mount = filepath.Clean(mount)
	root, err := resolve(dir)
	parent, err2 := resolve(filepath.Dir(mount))
	return within(mount, dir) || err == nil && err2 == nil && within(filepath.Join(parent, filepath.Base(mount)), root)
}

// within reports whether a clean path is the directory or below it.
func within(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}

// explain names what the operator allows.
func explain(err error, dirs []string, flag string) error {
	if !errors.Is(err, errOutside) {
		return err
	}
	if len(dirs) == 0 {
		return fmt.Errorf("%w: the operator of the node allows none; %s allows directories", err, flag)
	}
	return fmt.Errorf("%w: the operator of the node allows %s and what is below; %s allows more", err,
		strings.Join(dirs, ", "), flag)
}

// localSource is the directory that a source names on the node, local only where it names one. Every
// source must have a scheme that is known to be remote, or be understood as a directory.
func localSource(source string) (dir string, local bool, err error) {
	if strings.HasPrefix(source, "/") {
		return source, true, nil
	}
	kind, _, found := strings.Cut(source, "://")
	switch kind = strings.ToLower(kind); {
	case found && (kind == "http" || kind == "https" || kind == "s3" || kind == "alluxio"):
		return "", false, nil
	case !found || kind != "file":
		// The source is not repeated: a malformed one may hold a password.
		return "", false, errors.New("source is neither a URL of http, https, s3, alluxio or file, nor an absolute " +
			"path")
	}
	u, err := url.Parse(source)
	if err != nil || u.User != nil || u.Host != "" && u.Host != "localhost" || u.RawQuery != "" || u.Fragment != "" ||
		!strings.HasPrefix(u.Path, "/") {
		return "", false, errors.New("source is no file URL of the form file:///a/directory")
	}
	return u.Path, true, nil
}
