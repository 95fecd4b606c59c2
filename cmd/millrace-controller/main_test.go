package main

import (
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"millrace.io/millrace/cmd/command"
	"millrace.io/millrace/cmd/command/refusals"
	"millrace.io/millrace/driver"
	"millrace.io/millrace/sanity/manifest"
)

// parseController reads the arguments without running the controller.
func parseController(args []string) (*controllerConfig, error) {
	f, c := newController()
	f.Runs(func(rest []string, _ io.Writer) error {
		if len(rest) > 0 {
			return f.Wrong("%q", rest)
		}
		return nil
	})
	return c, command.Execute(f.Command, args, io.Discard)
}

// TestControllerFlags reads the controller's arguments.
func TestControllerFlags(t *testing.T) {
	c, err := parseController([]string{
		"--watch-namespace", "data", "--leader-elect=false", "--metrics",
		"127.0.0.1:9000", "--log-format", "json", "--millrace-image", "here/millrace:1",
	})
	if err != nil {
		t.Fatal(err)
	}
	if k := c.controller; k.Watch != "data" || k.Elect || k.Metrics != "127.0.0.1:9000" || k.Health != ":8081" ||
		k.Settings.MillraceImage != "here/millrace:1" || c.logFormat != "json" {
		t.Errorf("got %+v", c)
	}
	for _, args := range [][]string{{"what"}, {"--leader-elect=perhaps"}, {"--namespace", ""}} {
		if _, err := parseController(args); err == nil {
			t.Errorf("%q is accepted", args)
		}
	}
}

// TestManifestOfController has the controller's arguments understood.
func TestManifestOfController(t *testing.T) {
	spec, container, args := manifest.Read(t, "controller")
	c, err := parseController(args)
	if err != nil {
		t.Fatal(err)
	}
	k := c.controller
	if !k.Elect || k.Settings.Namespace != "millrace-system" || k.Settings.MillraceImage != container.Image ||
		k.Settings.Driver != driver.Name || k.CheckClass == nil {
		t.Errorf("got %+v", k)
	}
	if !slices.ContainsFunc(spec.Tolerations, func(x corev1.Toleration) bool { return x.Key == k.Taint }) {
		t.Errorf("it takes the taint %q away and waits for that: it tolerates %v", k.Taint, spec.Tolerations)
	}
	// The agents of the chart see these by default.
	if !slices.Equal(k.Settings.TierDirs, []string{"/dev/shm"}) {
		t.Errorf("agents are said to see %q", k.Settings.TierDirs)
	}
	manifest.Probed(t, &container, map[string]string{"/healthz": k.Health, "/readyz": k.Health})
	for _, args := range [][]string{{"--startup-taint", "not a key"}, {"--startup-taint", ""}, {"--tier-dirs", "shm"}} {
		if _, err := parseController(args); err == nil {
			t.Errorf("%q is accepted", args)
		}
	}
}

// TestFlagsSayWhatTheyTake gives wrong values to every flag.
func TestFlagsSayWhatTheyTake(t *testing.T) {
	if refused := refusals.Check(t, controllerCommand().Command); refused < 12 {
		t.Errorf("only %d flags refuse anything", refused)
	}
	for flag, values := range map[string][]string{
		"--health":          {":8081", "127.0.0.1:0", "[::1]:8081", "localhost:8081", "none", "0"},
		"--watch-namespace": {"a", "data-2"},
		"--driver":          {"csi.millrace.io", "x"},
	} {
		for _, value := range values {
			if _, err := parseController([]string{flag, value}); err != nil {
				t.Errorf("%s %q: %v", flag, value, err)
			}
		}
	}
}

// TestVersion asks for it in both ways.
func TestVersion(t *testing.T) {
	for _, arg := range []string{"version", "--version"} {
		var out strings.Builder
		err := command.Execute(controllerCommand().Command, []string{arg}, &out)
		if err != nil || !strings.HasPrefix(out.String(), "millrace-controller dev (") {
			t.Errorf("%s: %q, %v", arg, out.String(), err)
		}
	}
}

// TestAPIServer has what is wrong with a file that says where the API server is told in one sentence.
func TestAPIServer(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("HOME", dir)
	t.Setenv("KUBECONFIG", "")
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	missing, empty := filepath.Join(dir, "missing"), filepath.Join(dir, "empty")
	garbage, good := filepath.Join(dir, "garbage"), filepath.Join(dir, "good")
	for file, text := range map[string]string{empty: "", garbage: "{[", good: `
clusters: [{name: c, cluster: {server: "https://h"}}]
contexts: [{name: c, context: {cluster: c}}]
current-context: c
`} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	accepted := "; accepted is a file that kubectl takes"
	for _, c := range []struct{ flag, variable, begins, ends string }{
		{missing, "", `--kubeconfig "` + missing + `" cannot be used: no such file or directory`, accepted},
		{dir, "", `--kubeconfig "` + dir + `" cannot be used: `, ": is a directory" + accepted},
		{empty, "", `--kubeconfig "` + empty + `" cannot be used: it names no API server`, accepted},
		{garbage, good, `--kubeconfig "` + garbage + `" cannot be used: `, accepted},
		{"", missing, `KUBECONFIG="` + missing + `" cannot be used: it names no API server; `, "that kubectl takes"},
		{"", "", "no API server is known; ", "give --kubeconfig FILE or set KUBECONFIG"},
		{"", garbage, `KUBECONFIG="` + garbage + `" cannot be used: `, "; accepted are files that kubectl takes"},
	} {
		t.Setenv("KUBECONFIG", c.variable)
		_, err := apiServer(c.flag)
		if err == nil || !strings.HasPrefix(err.Error(), c.begins) || !strings.HasSuffix(err.Error(), c.ends) {
			t.Errorf("%q, %q: %v", c.flag, c.variable, err)
		}
	}
	if config, err := apiServer(good); err != nil || config.Host != "https://h" {
		t.Errorf("%+v, %v", config, err)
	}
}
