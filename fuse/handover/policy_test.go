package handover

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestPolicyPaths(t *testing.T) {
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	join := func(name string) string { return filepath.Join(root, name) }
	for _, dir := range []string{"tier/a", "data/set", "outside", "real"} {
		if err := os.MkdirAll(join(dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range map[string]string{
		"tier/out": "../outside", "tier/in": "a", "linked": "real", "tier/nowhere": "/does/not/exist",
		"data/out": "../outside",
	} {
		if err := os.Symlink(to, join(link)); err != nil {
			t.Fatal(err)
		}
	}
	p := Policy{TierDirs: []string{join("tier"), join("linked")}, LocalSources: []string{join("data")}}
	for _, c := range []struct {
		tier, source string
		policy       Policy
		want         string // a part of the error, "" for none
	}{
		{"", "https://h/x/", p, ""},
		{"", "S3://bucket/x", p, ""},
		{join("tier"), "https://h/", p, ""},
		{join("tier/a"), "https://h/", p, ""},
		{join("tier/new/deep"), "https://h/", p, ""},
		{join("tier/in"), "https://h/", p, ""},
		{join("linked/x"), "https://h/", p, ""},
		{join("tierx"), "https://h/", p, "is not allowed"},
		{join("tier/out"), "https://h/", p, "is not allowed"},
		{join("tier/out/new"), "https://h/", p, "is not allowed"},
		{join("tier/nowhere"), "https://h/", p, "cannot be looked up"},
		{join("tier") + "/../outside", "https://h/", p, "clean absolute"},
		{"tier", "https://h/", p, "clean absolute"},
		{join("tier"), "https://h/", Policy{}, "--tier-dir"},
		{"", join("data/set"), p, ""},
		{"", "file://" + join("data/set"), p, ""},
		{"", "FILE://localhost" + join("data"), p, ""},
		{"", join("data/out"), p, "is not allowed"},
		{"", "file://" + join("data") + "/%2e%2e/outside", p, "clean absolute"},
		{"", "/etc", p, "--allow-local"},
		{"", join("data"), Policy{}, "--allow-local"},
		{"", "/", p, "is not allowed"},
		{"", "file://host/x", p, "no file URL"},
		{"", "data/set", p, "neither a URL"},
		{"", "ftp://h/x", p, "neither a URL"},
		{"", "", p, "neither a URL"},
	} {
		err := c.policy.Check(Volume{TierDir: c.tier, Source: c.source})
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("tier %q source %q: %v, want %q", c.tier, c.source, err, c.want)
		}
	}
	for _, dir := range []string{
		join("data/set"), join("data/set/mnt"), join("data/set/a/../mnt"),
		join("linked/../data/set/mnt"),
	} {
		if err := p.Check(Volume{Source: "file://" + join("data/set"), Dir: dir}); err == nil ||
			!strings.Contains(err.Error(), "in itself") {
			t.Errorf("mounted at %q, in its own source: %v", dir, err)
		}
		if err := p.CheckResumed(Volume{Source: "file://" + join("data/set"), Dir: dir}); err != nil {
			t.Errorf("resumed at %q, in its own source: %v", dir, err)
		}
	}
	for _, dir := range []string{join("data/sets"), join("data"), join("outside")} {
		if err := p.Check(Volume{Source: join("data/set"), Dir: dir}); err != nil {
			t.Errorf("mounted at %q: %v", dir, err)
		}
	}
	if err := (Policy{TierDirs: []string{"/"}}).Check(Volume{Source: "s3://b", TierDir: root}); err != nil {
		t.Error("everything below / is allowed:", err)
	}
}

func TestPolicyOptions(t *testing.T) {
	for _, c := range []struct {
		name, value string
		ok          bool
	}{
		{"endpoint", "https://minio:9000", true},
		{"secret_access_key", "hunter2", true},
		{"user", "env:HOME", false},
		{"ca_cert", "/etc/ssl/x.pem", false},
		{"source_ca_cert", "/etc/ssl/x.pem", false},
		{"source_env_auth", "true", false},
		{"client_key", "/etc/ssl/x.key", false},
		{"ca_cert", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", true},
		{"source_ca_cert", "-----BEGIN CERTIFICATE-----AAAA-----END CERTIFICATE-----", true},
		{"https_proxy", "http://me:secret@proxy:3128", true},
		{"env_auth", "true", false},
		{"shared_credentials_file", "", false},
		{"some_key_file", "x", false},
		{"bearer_token_command", "id", false},
	} {
		for _, v := range []Volume{
			{Source: "s3://b", Options: map[string]string{c.name: c.value}},
			{Source: "s3://b", Secrets: map[string]string{c.name: c.value}},
		} {
			err := Policy{}.Check(v)
			if (err == nil) != c.ok {
				t.Errorf("%s=%s: %v", c.name, c.value, err)
			}
			if err != nil && c.value != "" && strings.Contains(err.Error(), c.value) && len(c.value) > 4 {
				t.Errorf("%s: the error repeats the value: %v", c.name, err)
			}
		}
	}
}

// FuzzPolicyTier: whatever a volume names, a tier that passes resolves to a place below the allowed directory.
func FuzzPolicyTier(f *testing.F) {
	for _, seed := range []string{"a", "out", "out/x", "../outside", "a/../../outside", "new//x", "in/../out", "\x00"} {
		f.Add(seed)
	}
	root, err := filepath.EvalSymlinks(f.TempDir())
	if err != nil {
		f.Fatal(err)
	}
	tier := filepath.Join(root, "tier")
	_ = os.MkdirAll(filepath.Join(tier, "a"), 0o755)
	_ = os.MkdirAll(filepath.Join(root, "outside"), 0o755)
	_ = os.Symlink("../outside", filepath.Join(tier, "out"))
	_ = os.Symlink("a", filepath.Join(tier, "in"))
	p := Policy{TierDirs: []string{tier}}
	f.Fuzz(func(t *testing.T, name string) {
		path := tier + "/" + name
		if p.Check(Volume{Source: "s3://b", TierDir: path}) != nil {
			return
		}
		at := path
		for at != "/" {
			if resolved, err := filepath.EvalSymlinks(at); err == nil {
				if !within(resolved, tier) {
					t.Fatalf("%q was allowed and leads to %q", path, resolved)
				}
				return
			}
			at = filepath.Dir(at)
		}
	})
}
