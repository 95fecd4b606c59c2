package rpc

import (
	"errors"
	"fmt"
	"net"
	"path"
	"strconv"
	"strings"
)

// Scheme is what begins the address of a cluster.
const Scheme = "alluxio"

// Address names a cluster and a directory in it.
type Address struct {
	// Masters are host:port of each master, in the order given.
	Masters []string
	// Path is the absolute directory in Alluxio's name space, without a slash at its end; "/" for all of it.
	Path string
}

// ParseAddress reads alluxio://host:port[,host:port...]/path. Its errors are one sentence.
func ParseAddress(s string) (Address, error) {
	rest, ok := strings.CutPrefix(s, Scheme+"://")
	if !ok {
		return Address{}, fmt.Errorf("source %q is no alluxio://host:port[,host:port...]/path", s)
	}
	authority, dir, _ := strings.Cut(rest, "/")
	if strings.Contains(authority, "@") {
		return Address{}, errors.New("an alluxio:// source takes no user in the address; give it as the option user")
	}
	var a Address
	for master := range strings.SplitSeq(authority, ",") {
		if err := checkHostPort(master); err != nil {
			return Address{}, fmt.Errorf("source %q: master %q %w", s, master, err)
		}
		a.Masters = append(a.Masters, master)
	}
	for name := range strings.SplitSeq(strings.Trim(dir, "/"), "/") {
		if name == "." || name == ".." || strings.Contains(name, "\x00") {
			return Address{}, fmt.Errorf(`source %q: the path has a "." or ".." part or a NUL`, s)
		}
	}
	a.Path = path.Clean("/" + dir)
	return a, nil
}

// String is the address as ParseAddress reads it.
func (a Address) String() string {
	return Scheme + "://" + strings.Join(a.Masters, ",") + a.Path
}

func checkHostPort(s string) error {
	host, port, err := net.SplitHostPort(s)
	if err != nil || host == "" {
		return errors.New("is no host:port")
	}
	if len(host) > mostHostBytes || strings.ContainsFunc(host, notOfHosts) {
		return fmt.Errorf("has no host's name; accepted are %d bytes without spaces, controls and any of %s",
			mostHostBytes, separators)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return fmt.Errorf("has the port %q; accepted are 1 to 65535", port)
	}
	return nil
}

// separators are what stands around hosts and is in none.
const separators = `/\@?#"`

// notOfHosts reports whether no host's name has the character.
func notOfHosts(r rune) bool { return r <= ' ' || r == 0x7f || strings.ContainsRune(separators, r) }
