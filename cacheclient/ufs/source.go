package ufs

import (
	"errors"
	"fmt"
	"net/url"
	"path"
	"strings"

	"github.com/rclone/rclone/fs"

	"millrace.io/millrace/cacheclient/border"
)

// scheme is a kind of source.
type scheme string

const (
	schemeHTTP  scheme = "http"
	schemeS3    scheme = "s3"
	schemeLocal scheme = "local"
	// schemeRemote is any other store that rclone speaks to.
	schemeRemote scheme = "rclone"
)

// source is what the user named, understood.
type source struct {
	scheme scheme
	// base is the URL of the root directory, ending in "/", for schemeHTTP.
	base *url.URL
	// bare says that it was given without the slash.
	bare bool
	// bucket and prefix, without slashes at its ends, are for schemeS3.
	bucket, prefix string
	// dir is absolute and clean, for schemeLocal; for schemeRemote it is what the backend makes of it.
	dir string
	// backend is rclone's, and options are those of a connection string, for schemeRemote.
	backend *fs.RegInfo
	options map[string]string
	// show is the source as given, without secrets.
	show string
}

var errSecretInURL = errors.New("a user or password in it would show in process lists; name them as options user and " +
	"pass in the options file, or as name=env:VARIABLE")

// parseSource understands a source, without asking whether it is there. Its errors are one
// sentence and repeat no secret.
func parseSource(s string) (source, error) {
	kind, rest, found := strings.Cut(s, "://")
	switch {
	case s == "":
		return source{}, errors.New(`source "" is empty; give https://host/path/, s3://bucket/prefix or /a/directory`)
	case strings.ContainsAny(s, "\x00\r\n"):
		return source{}, fmt.Errorf("source %q has a control character", redact(s))
	case strings.HasPrefix(s, ":"):
		return parseRemote(s)
	case strings.HasPrefix(s, "/"):
		return source{scheme: schemeLocal, dir: path.Clean(s), show: s}, nil
	case !found:
		return source{}, fmt.Errorf("source %q is neither a URL nor an absolute path; give https://host/path/, "+
			"s3://bucket/prefix, alluxio://master:19998/path or /a/directory", redact(s))
	}
	var src source
	var err error
	switch strings.ToLower(kind) {
	case "http", "https":
		src, err = parseHTTP(s)
	case "s3":
		src, err = parseS3(rest)
	case "file":
		src, err = parseFile(s)
	default:
		return source{}, fmt.Errorf("source %q has the unknown scheme %q; accepted are http, https, s3, file, alluxio "+
			"and an absolute path", redact(s), kind)
	}
	if err != nil {
		return source{}, fmt.Errorf("source %q: %w", redact(s), err)
	}
	// It parsed without a user and without a query, so it has no secret.
	src.show = s
	return src, nil
}

func parseHTTP(s string) (source, error) {
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return source{}, bareURLError(err)
	case u.User != nil:
		return source{}, errSecretInURL
	case u.Hostname() == "":
		return source{}, errors.New("no host is named; accepted is http://HOST/PATH/ or https://HOST/PATH/")
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return source{},
			errors.New(`a query or fragment cannot be kept for the files below; write "?" as %3F and "#" as %23, and send tokens with the option headers`)
	}
	u.Scheme = strings.ToLower(u.Scheme)
	bare := !strings.HasSuffix(u.Path, "/")
	if bare {
		u = withPath(u, u.Path+"/", u.EscapedPath()+"/")
	}
	return source{scheme: schemeHTTP, base: u, bare: bare && u.Path != "/"}, nil
}

func parseS3(rest string) (source, error) {
	bucket, prefix, _ := strings.Cut(rest, "/")
	if strings.Contains(bucket, "@") {
		return source{}, errors.New("keys do not belong in it; name them as options access_key_id and " +
			"secret_access_key in the options file, or use env_auth")
	}
	if bucket == "" {
		return source{}, errors.New("no bucket is named; give s3://bucket/prefix")
	}
	prefix = strings.Trim(prefix, "/")
	if !validPath(prefix) {
		return source{}, errors.New(`the prefix has an empty, "." or ".." part`)
	}
	return source{scheme: schemeS3, bucket: bucket, prefix: prefix}, nil
}

func parseFile(s string) (source, error) {
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return source{}, bareURLError(err)
	case u.User != nil || u.Host != "" && u.Host != "localhost":
		return source{}, errors.New("it names a host; give file:///a/directory")
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return source{}, errors.New(`it has a query or fragment; write "?" as %3F and "#" as %23`)
	case !strings.HasPrefix(u.Path, "/") || strings.Contains(u.Path, "\x00"):
		return source{}, errors.New("it names no absolute path; give file:///a/directory")
	}
	return source{scheme: schemeLocal, dir: path.Clean(u.Path)}, nil
}

// kind is what the source's options are called after.
func (s source) kind() string {
	if s.scheme == schemeRemote {
		return s.backend.Name
	}
	return string(s.scheme)
}

// redact takes a user, a password and a query out of a source, parseable or not.
func redact(s string) string {
	kind, rest, found := strings.Cut(s, "://")
	if !found {
		return s
	}
	kind += "://"
	if k := strings.ToLower(kind); k != "s3://" && k != "file://" {
		if query := strings.IndexAny(rest, "?#"); query >= 0 {
			rest = rest[:query+1] + "..."
		}
	}
	// The last @ counts, since an unescaped password may have one, or a slash.
	if at := strings.LastIndexByte(rest, '@'); at >= 0 && strings.ContainsAny(rest[:at], ":") ||
		at >= 0 && !strings.Contains(rest[:at], "/") {
		rest = "...@" + rest[at+1:]
	}
	return kind + rest
}

// bareURLError drops from an error of url.Parse the URL, which may have a secret.
func bareURLError(err error) error {
	var e *url.Error
	if !errors.As(err, &e) {
		return errors.New("it is no URL")
	}
	var escape url.EscapeError
	var host url.InvalidHostError
	switch {
	case errors.As(e.Err, &escape):
		return errors.New("it has an invalid percent escape; write a percent sign as %25")
	case errors.As(e.Err, &host):
		return errors.New("its host has an invalid character")
	}
	return errors.New("it is no valid URL")
}

// withPath is u with another path, given plain and escaped.
func withPath(u *url.URL, plain, escaped string) *url.URL {
	v := *u
	v.Path, v.RawPath = plain, escaped
	return &v
}

// validPath reports whether a path is "" or slash-separated names none of which is empty,
// "." or "..". A name may be any bytes otherwise, as it may in a file system.
func validPath(p string) bool {
	if p == "" {
		return true
	}
	for name := range strings.SplitSeq(p, "/") {
		if !validName(name) {
			return false
		}
	}
	return true
}

// validName reports whether a file system can have an entry of this name.
func validName(name string) bool { return border.Name(name) }

// join is the path of the entry name of the directory dir.
func join(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}
