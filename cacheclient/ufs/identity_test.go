package ufs

import (
	"maps"
	"slices"
	"strings"
	"testing"
)

// identified is the identity of a source with these options.
func identified(t *testing.T, source string, opts Options) string {
	t.Helper()
	opts.Deferred = true
	return mustOpen(t, source, opts).Identity()
}

// TestIdentity holds which options make another source of one name, and which do not.
func TestIdentity(t *testing.T) {
	dir := t.TempDir()
	s3 := Options{
		Values:  map[string]string{"endpoint": "http://one:9000", "access_key_id": "env:UFS_TEST_KEY"},
		Secrets: map[string]string{"secret_access_key": "hidden-secret"},
	}
	t.Setenv("UFS_TEST_KEY", "key")
	web := Options{Secrets: map[string]string{
		"headers": "Host,one", "pass": "hidden-secret",
		"https_proxy": "http://me:hidden-secret@proxy:3128",
	}, Values: map[string]string{"user": "me"}}
	for source, c := range map[string]struct {
		base        Options
		same, other []map[string]string
	}{
		"s3://bucket/prefix": {
			s3,
			[]map[string]string{
				{"list_chunk": "10"},
				{"upload_concurrency": "9"},
				{"provider": "Other"},
				{"region": "us-east-1"},
				{"disable_http2": "true"},
			},
			[]map[string]string{
				{"endpoint": "http://two:9000"},
				{"region": "eu-central-1"},
				{"provider": "Minio"},
				{"secret_access_key": "another"},
				{"access_key_id": "another"},
				{"session_token": "another"},
				{"profile": "another"},
				{"role_arn": "arn:aws:iam::1:role/x"},
				{"requester_pays": "true"},
				{"force_path_style": "false"},
				{"no_check_certificate": "true"},
			},
		},
		"http://host/path/": {
			web,
			[]map[string]string{{"no_slash": "false"}, {"https_proxy": "http://me:another@proxy:3128"}},
			[]map[string]string{
				{"headers": "Host,two"},
				{"user": "you"},
				{"pass": "another"},
				{"no_escape": "true"},
				{"no_slash": "true"},
				{"proxy": "http://other:3128"},
			},
		},
		dir: {
			Options{},
			[]map[string]string{{"copy_links": "true"}, {"validate": "all"}},
			[]map[string]string{
				{"copy_links": "false"},
				{"one_file_system": "true"},
				{"validate": "time"},
				{"no_check_updated": "true"},
			},
		},
	} {
		base := identified(t, source, c.base)
		if strings.Contains(base, "hidden-secret") {
			t.Errorf("%s: the identity tells a secret", source)
		}
		with := func(more map[string]string) Options {
			opts := c.base
			opts.Secrets = maps.Clone(c.base.Secrets)
			if opts.Secrets == nil {
				opts.Secrets = map[string]string{}
			}
			opts.Values = maps.Clone(c.base.Values)
			for name, value := range more {
				delete(opts.Values, name)
				opts.Secrets[name] = value
			}
			return opts
		}
		for _, more := range c.same {
			if got := identified(t, source, with(more)); got != base {
				t.Errorf("%s with %v is %q, not %q", source, more, got, base)
			}
		}
		seen := []string{base}
		for _, more := range c.other {
			got := identified(t, source, with(more))
			if slices.Contains(seen, got) {
				t.Errorf("%s with %v is %q as another is", source, more, got)
			}
			seen = append(seen, got)
		}
	}
}

// TestIdentityOfPlaces takes a place for one however it is written, and others for others.
func TestIdentityOfPlaces(t *testing.T) {
	dir := t.TempDir()
	for _, pair := range [][2]string{
		{dir, "file://" + dir},
		{dir, dir + "/"},
		{"http://host/path", "http://host/path/"},
		{"s3://b/p", "s3://b/p/"},
	} {
		if a, b := identified(t, pair[0], Options{}), identified(t, pair[1], Options{}); a != b {
			t.Errorf("%s is %q, %s is %q", pair[0], a, pair[1], b)
		}
	}
	seen := map[string]string{}
	for _, source := range []string{
		dir, dir + "/a", "http://host/", "https://host/", "http://host:81/",
		"http://host/a/", "s3://host", "s3://host/a",
	} {
		id := identified(t, source, Options{})
		if seen[id] != "" {
			t.Errorf("%s and %s are both %q", source, seen[id], id)
		}
		seen[id] = source
	}
	if identified(t, dir, Options{}) == identified(t, dir, Options{FollowLinks: true}) {
		t.Error("links that lead out do not count")
	}
	if identified(t, dir, Options{Within: []string{dir}}) == identified(t, dir, Options{}) {
		t.Error("what is allowed does not count")
	}
}

// TestIdentityOfTheEnvironment counts what the environment decides, where it does.
func TestIdentityOfTheEnvironment(t *testing.T) {
	opts := Options{Values: map[string]string{"env_auth": "true"}}
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	t.Setenv("AWS_ACCESS_KEY_ID", "one")
	one, plain := identified(t, "s3://b", opts), identified(t, "s3://b", Options{})
	t.Setenv("AWS_ACCESS_KEY_ID", "two")
	if two := identified(t, "s3://b", opts); one == two {
		t.Errorf("two users are both %q", one)
	}
	if now := identified(t, "s3://b", Options{}); now != plain {
		t.Errorf("without env_auth: from %q to %q", plain, now)
	}
}
