// Package manifest reads the workloads of deploy/ for the tests of the programs that they run, which compare what is
// written there with what their own flags understand.
package manifest

import (
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	sigsyaml "sigs.k8s.io/yaml"
)

// Read returns the pod of a file of the kustomize base, and its only container with the arguments as kubelet gives
// them.
func Read(tb testing.TB, name string) (corev1.PodSpec, corev1.Container, []string) {
	tb.Helper()
	raw, err := os.ReadFile("../../deploy/kustomize/base/" + name + ".yaml")
	if err != nil {
		tb.Fatal(err)
	}
	var spec corev1.PodSpec
	for doc := range strings.SplitSeq(string(raw), "\n---\n") {
		var set appsv1.DaemonSet // A Deployment's template is in the same place.
		if err := sigsyaml.Unmarshal([]byte(doc), &set); err != nil {
			tb.Fatal(err)
		}
		if len(set.Spec.Template.Spec.Containers) == 1 {
			spec = set.Spec.Template.Spec
		}
	}
	if len(spec.Containers) != 1 {
		tb.Fatalf("%s has no workload of one container", name)
	}
	c := spec.Containers[0]
	args := slices.Clone(c.Args)
	for i := range args {
		for _, v := range c.Env {
			if v.ValueFrom == nil || v.ValueFrom.FieldRef == nil {
				args[i] = strings.ReplaceAll(args[i], "$("+v.Name+")", v.Value)
				continue
			}
			value := map[string]string{
				"spec.nodeName": "node-1",
				"status.hostIP": "192.0.2.1",
			}[v.ValueFrom.FieldRef.FieldPath]
			args[i] = strings.ReplaceAll(args[i], "$("+v.Name+")", value)
		}
		if strings.Contains(args[i], "$(") {
			tb.Errorf("%s: nothing gives a value to %s", name, args[i])
		}
	}
	if len(c.Command) > 0 {
		return spec, c, args
	}
	if args[0] != name {
		tb.Fatalf("%s runs %q", name, args)
	}
	return spec, c, args[1:]
}

// Probed fails unless both probes ask one of the addresses, each given as path and address.
func Probed(tb testing.TB, c *corev1.Container, pages map[string]string) {
	tb.Helper()
	for _, p := range []*corev1.Probe{c.LivenessProbe, c.ReadinessProbe} {
		if p == nil || p.HTTPGet == nil {
			tb.Fatal("a probe is missing, or asks by something else than HTTP")
		}
		port := p.HTTPGet.Port.String()
		for _, named := range c.Ports {
			if named.Name == port {
				port = strconv.Itoa(int(named.ContainerPort))
			}
		}
		address := pages[p.HTTPGet.Path]
		if want := address[strings.LastIndex(address, ":")+1:]; want != port {
			tb.Errorf("a probe asks for %s on the port %s, and it is on %q", p.HTTPGet.Path, port, address)
		}
		if host, _, _ := strings.Cut(address, ":"); strings.HasPrefix(host, "127.") && p.HTTPGet.Host != host {
			tb.Errorf("a probe asks %q for %s, which is on %s", p.HTTPGet.Host, p.HTTPGet.Path, address)
		}
	}
}
