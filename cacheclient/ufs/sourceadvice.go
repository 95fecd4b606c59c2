package ufs

import (
	"fmt"
	"net/url"
	"path"
	"regexp"
	"strings"
)

// isFile says of a source that it is a file, and what to give instead.
func (s source) isFile() string { return "it is a file and not a directory; " + s.instead() }

// instead says which directory to give for a file.
func (s source) instead() string {
	if holder := s.holder(); holder != "" {
		return "give the directory that it is in, " + holder
	}
	return "give a directory"
}

// holder is the source that has this one in it, "" where there is none.
func (s source) holder() string {
	switch s.scheme {
	case schemeHTTP:
		if s.base.Path == "/" {
			return ""
		}
		return s.base.ResolveReference(&url.URL{Path: ".."}).String()
	case schemeS3:
		dir, _, nested := cutLast(s.prefix)
		switch {
		case s.prefix == "":
			return ""
		case nested:
			return "s3://" + s.bucket + "/" + dir + "/"
		}
		return "s3://" + s.bucket
	case schemeLocal:
		return path.Dir(s.dir)
	default:
		return ""
	}
}

// cutLast cuts a path at its last slash.
func cutLast(p string) (dir, name string, found bool) {
	i := strings.LastIndexByte(p, '/')
	if i < 0 {
		return "", p, false
	}
	return p[:i], p[i+1:], true
}

// Names of buckets. Amazon has had other names than those it makes today (capitals, "_", up to 255), and other servers
// take shorter ones and "tenant:bucket". What no server takes is not asked for.
var (
	bucketName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._:-]{0,253}[A-Za-z0-9])?$`)
	bucketARN  = regexp.MustCompile(`^arn:[A-Za-z0-9:._-]+$`)
)

// checkBucket refuses a name that no bucket has, before the network is asked.
func checkBucket(name string) error {
	if bucketARN.MatchString(name) || bucketName.MatchString(name) && !strings.Contains(name, "..") {
		return nil
	}
	return fmt.Errorf("%q is not a bucket's name: accepted are letters and digits, and . - _ : between them", name)
}
