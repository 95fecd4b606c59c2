package main

import (
	"io"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"millrace.io/millrace/cmd/command"
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
	c, err := parseController([]string{"--watch-namespace", "data", "--leader-elect=false", "--metrics", "127.0.0.1:9000", "--log-format", "json", "--millrace-image", "here/millrace:1"})
	if err != nil {
		t.Fatal(err)
	}
	if k := c.controller; k.Watch != "data" || k.Elect || k.Metrics != "127.0.0.1:9000" || k.Health != ":8081" || k.Settings.MillraceImage != "here/millrace:1" || c.logFormat != "json" {
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
	if !k.Elect || k.Settings.Namespace != "millrace-system" || k.Settings.MillraceImage != container.Image || k.Settings.Driver != driver.Name || k.CheckClass == nil {
		t.Errorf("got %+v", k)
	}
	if !slices.ContainsFunc(spec.Tolerations, func(x corev1.Toleration) bool { return x.Key == k.Taint }) {
		t.Errorf("it takes the taint %q away and waits for that: it tolerates %v", k.Taint, spec.Tolerations)
	}
	manifest.Probed(t, &container, map[string]string{"/healthz": k.Health, "/readyz": k.Health})
	for _, args := range [][]string{{"--startup-taint", "not a key"}, {"--startup-taint", ""}} {
		if _, err := parseController(args); err == nil {
			t.Errorf("%q is accepted", args)
		}
	}
}
