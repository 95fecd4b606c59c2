package alluxio

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestOptionsAreTaken(t *testing.T) {
	t.Setenv("MILLRACE_TEST_PASSWORD", "from the environment")
	var cfg Config
	err := cfg.Apply(t.Context(), Given{
		Values: map[string]string{
			"user": "ann", "impersonate": "bob", "password": "env:MILLRACE_TEST_PASSWORD", "tls": "true",
			"ca_cert":       "/ca.pem",
			"short_circuit": "false", "passive_cache": "1", "workers_read": "true", "local_hosts": "node-1, 10.0.0.1",
			"source":         "https://mirror/x",
			"source_headers": "a: b",
		},
		Secrets: map[string]string{"source_pass": "hidden"},
	})
	if err != nil {
		t.Fatal(err)
	}
	s := cfg.Security
	if s.User != "ann" || s.Impersonate != "bob" || s.Password != "from the environment" || !s.TLS ||
		s.Authorities != "/ca.pem" {
		t.Errorf("the security is %+v", s)
	}
	if !cfg.NoShortCircuit || !cfg.PassiveCache || !cfg.WorkersRead ||
		!slices.Equal(cfg.LocalHosts, []string{"node-1", "10.0.0.1"}) {
		t.Errorf("the configuration is %+v", cfg)
	}
	if len(cfg.Sources) != 1 || cfg.Sources[0].URL != "https://mirror/x" {
		t.Fatalf("the sources are %+v", cfg.Sources)
	}
	o := cfg.Sources[0].Options
	if !maps.Equal(o.Values, map[string]string{"headers": "a: b"}) ||
		!maps.Equal(o.Secrets, map[string]string{"pass": "hidden"}) {
		t.Errorf("the source's options are %+v", o)
	}
}

func TestOptionsOfAFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "options")
	if err := os.WriteFile(file, []byte("user = ann\npassword = secret-1\nsource_pass = secret-2\nsource_user = eve\n"),
		0o600); err != nil {
		t.Fatal(err)
	}
	var cfg Config
	given := Given{File: file, Values: map[string]string{"user": "bob", "source_user": "carol"}}
	if err := cfg.Apply(t.Context(), given); err != nil {
		t.Fatal(err)
	}
	if cfg.Security.User != "bob" || cfg.Security.Password != "secret-1" {
		t.Errorf("the security is %+v", cfg.Security)
	}
	o := cfg.SourceOptions
	if o.Values["user"] != "carol" || o.Secrets["pass"] != "secret-2" || len(o.Values) != 1 || len(o.Secrets) != 1 {
		t.Errorf("the source's options are %+v and %d secrets", o.Values, len(o.Secrets))
	}
	// One that others can read.
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	err := (&Config{}).Apply(t.Context(), given)
	if err == nil || !strings.Contains(err.Error(), "chmod 600") || strings.Contains(err.Error(), "secret-") {
		t.Errorf("a file that others read: %v", err)
	}
}

func TestOptionsThatAreRefused(t *testing.T) {
	for _, tc := range []struct {
		given Given
		want  string
	}{
		{Given{Values: map[string]string{"usr": "x"}}, `option "usr" is not known to alluxio sources; accepted are`},
		{Given{Values: map[string]string{"source_": "x"}}, `option "source_" is not known`},
		{
			Given{Values: map[string]string{"password": "hunter2"}},
			"option password is a secret and arguments show in process lists",
		},
		{Given{Values: map[string]string{"password": "env:MILLRACE_TEST_UNSET"}}, "MILLRACE_TEST_UNSET"},
		{Given{Values: map[string]string{"tls": "maybe"}}, `option tls is "maybe"; accepted are true and false`},
		{Given{Values: map[string]string{"local_hosts": " ,"}}, "option local_hosts names no host"},
		{Given{Values: map[string]string{"source": ""}}, "option source is empty"},
		{Given{File: "/no such file"}, `options file "/no such file"`},
	} {
		err := (&Config{}).Apply(t.Context(), tc.given)
		if err == nil || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "hunter2") ||
			strings.Contains(err.Error(), "\n") {
			t.Errorf("%+v: %v", tc.given, err)
		}
	}
}
