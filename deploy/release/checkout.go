package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/semver"

	"millrace.io/millrace/deploy/image/build"
)

// source is what is released, and as what.
type source struct {
	version, commit, goVersion string
	// at is the time that all files bear: the commit's.
	at time.Time
}

// number is the version as charts and images have it, without the "v".
func (s source) number() string { return strings.TrimPrefix(s.version, "v") }

// checkVersion refuses what is no version of a release.
func checkVersion(version string) error {
	if version == "" {
		return errors.New("VERSION is not given: make release VERSION=v1.2.3")
	}
	// The tag of an image can have no "+build".
	if semver.Canonical(version) != version {
		return fmt.Errorf("VERSION %q: v1.2.3 or v1.2.3-rc.1 is accepted, as semantic versions are, without +build",
			version)
	}
	return nil
}

// checkout reads what is released. A tag of the version at another commit is refused; changes that are not committed
// are too, unless dirty.
func checkout(ctx context.Context, version string, dirty bool) (source, error) {
	s := source{version: version}
	var err error
	if s.commit, err = output(ctx, nil, "git", "rev-parse", "--verify", "HEAD"); err != nil {
		return s, fmt.Errorf("a release is made from a git checkout, and this is none: %w", err)
	}
	changes, err := output(ctx, nil, "git", "status", "--porcelain")
	if err != nil {
		return s, err
	}
	if changes != "" && !dirty {
		return s, fmt.Errorf("%d files differ from the commit, which a release must not: commit them, or try it with "+
			"ALLOW_DIRTY=1", 1+strings.Count(changes, "\n"))
	}
	tagged, err := output(ctx, nil, "git", "for-each-ref", "--format=%(objectname) %(*objectname)",
		"refs/tags/"+version)
	if err != nil {
		return s, err
	}
	// An annotated tag is an object of its own, and names the commit second.
	if tagged != "" && !strings.Contains(tagged, s.commit) {
		return s, fmt.Errorf("VERSION %s: its tag is at another commit than this checkout's, %.12s", version, s.commit)
	}
	stamp, fixed := os.LookupEnv("SOURCE_DATE_EPOCH")
	if !fixed {
		if stamp, err = output(ctx, nil, "git", "log", "-1", "--format=%ct"); err != nil {
			return s, err
		}
	}
	if s.at, err = build.ParseEpoch(stamp); err != nil {
		return s, err
	}
	s.goVersion, err = output(ctx, nil, "go", "env", "GOVERSION")
	return s, err
}

// epoch sets the time of the release for the programs that ask for it.
func (s source) epoch() string { return "SOURCE_DATE_EPOCH=" + strconv.FormatInt(s.at.Unix(), 10) }
