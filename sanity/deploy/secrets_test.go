package deploy_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"millrace.io/millrace/controller/objects"
	"millrace.io/millrace/sanity/kube"
)

// The policies on the Secrets of PersistentVolumes, and what the warnings of one begin with.
const (
	warning = base + "/stage-secrets.yaml"
	naming  = root + "/deploy/kustomize/publish-secrets"
	warned  = "Warning: Validation failed for ValidatingAdmissionPolicy"
)

// volume is a PersistentVolume with that in its csi.
func volume(name, labels, csi string) string {
	return fmt.Sprintf(`apiVersion: v1
kind: PersistentVolume
metadata: {name: %[1]s, labels: {%[2]s}}
spec:
  capacity: {storage: 1Gi}
  accessModes: [ReadOnlyMany]
  persistentVolumeReclaimPolicy: Retain
  storageClassName: none
  csi: {volumeHandle: %[1]s, volumeAttributes: {source: "https://example.org/"}, %[3]s}
`, name, labels, csi)
}

// What volumes have in their csi.
const (
	ours    = "driver: csi.millrace.io"
	stage   = ", nodeStageSecretRef: {name: web, namespace: rot}"
	publish = ", nodePublishSecretRef: {name: other, namespace: elsewhere}"
)

// usual is the PersistentVolume of sanity/e2e, as users write it: its Secret is named for the stage alone.
func usual(t *testing.T, name string) string {
	t.Helper()
	for document := range strings.SplitSeq(text(t, "sanity/e2e/testdata/rotated-secret.yaml"), "---\n") {
		if strings.Contains(document, "kind: PersistentVolume\n") {
			return strings.ReplaceAll(document, "metadata: {name: rot}", "metadata: {name: "+name+"}")
		}
	}
	t.Fatal("there is no PersistentVolume in sanity/e2e/testdata/rotated-secret.yaml")
	return ""
}

// named is the Secret that is sent with each publish of a volume.
func named(t *testing.T, s *kube.Server, volume string) string {
	t.Helper()
	const path = "jsonpath={.spec.csi.nodePublishSecretRef.namespace}/{.spec.csi.nodePublishSecretRef.name}"
	return kubectl(t, s, "get", "pv", volume, "-o", path)
}

// goes removes a volume when the test ends. The controller that lets volumes go does not run here.
func goes(t *testing.T, s *kube.Server, volume string) {
	t.Helper()
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		for _, args := range [][]string{
			{"delete", "pv", volume, "--ignore-not-found", "--wait=false"},
			{"patch", "pv", volume, "--type=merge", "-p", `{"metadata": {"finalizers": null}}`},
		} {
			if out, err := s.Kubectl(ctx, args...); err != nil && !strings.Contains(out, "not found") {
				t.Errorf("kubectl %s: %v: %s", strings.Join(args, " "), err, out)
			}
		}
	})
}

// inForce applies a file with a policy, which goes with the test.
func inForce(t *testing.T, s *kube.Server, policy string) {
	t.Helper()
	kubectl(t, s, "apply", "--server-side", "-f", policy)
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		if out, err := s.Kubectl(ctx, "delete", "--ignore-not-found", "-f", policy); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	})
}

// TestSecretsOfVolumes makes PersistentVolumes that name their Secret for the stage alone. A user that makes one is
// warned; and where the API server has MutatingAdmissionPolicies, it is named for each publish too.
func TestSecretsOfVolumes(t *testing.T) {
	kube.Need(t)
	s := shared.Get(t)
	inForce(t, s, warning)
	told := "nodePublishSecretRef: {name: web, namespace: rot}"
	eventually(t, "a volume with a Secret for its stage is warned of", func() string {
		out := kubectl(t, s, "apply", "--dry-run=server", "-f", file(t, usual(t, "told")))
		if !strings.Contains(out, warned) || !strings.Contains(out, told) {
			return "kubectl says " + out
		}
		return ""
	})
	goes(t, s, "before")
	out := kubectl(t, s, "apply", "-f", file(t, usual(t, "before")))
	if publishes := named(t, s, "before"); !strings.Contains(out, told) || publishes != "/" {
		t.Errorf("it publishes with %s, and kubectl says %s", publishes, out)
	}
	quiet(t, s, map[string]string{
		"foreign": volume("foreign", "", "driver: example.org"+stage), "open": volume("open", "", ours),
		"both": volume("both", "", ours+stage+publish), "published": volume("published", "", ours+publish),
		"dataset": volume("dataset", objects.DatasetLabel+": d", ours+stage),
	})

	inForce(t, s, file(t, kube.Served(kubectl(t, s, "kustomize", naming))))
	eventually(t, "a volume with a Secret for its stage has it for each publish", func() string {
		out := kubectl(t, s, "apply", "--dry-run=server", "-o", "yaml", "-f", file(t, usual(t, "mended")))
		if !strings.Contains(out, "nodePublishSecretRef:") || strings.Contains(out, warned) {
			return "kubectl says " + out
		}
		return ""
	})
	t.Run("Named", func(t *testing.T) { secretIsNamed(t, s) })
	t.Run("Left", func(t *testing.T) { secretIsLeft(t, s) })
}

// quiet makes volumes with which nothing is wrong.
func quiet(t *testing.T, s *kube.Server, volumes map[string]string) {
	t.Helper()
	for name, manifest := range volumes {
		out := kubectl(t, s, "apply", "--dry-run=server", "-f", file(t, manifest))
		if strings.Contains(out, warned) {
			t.Errorf("of %s kubectl says %s", name, out)
		}
	}
}

// secretIsNamed sends a volume in each of the ways that users have, as it was and with another size: it publishes with
// the Secret throughout, and nothing is said.
func secretIsNamed(t *testing.T, s *kube.Server) {
	t.Helper()
	const apply, serverSide, replace = "apply", "apply --server-side --force-conflicts", "replace"
	for name, create := range map[string]string{
		"applied": apply, "created": "create --save-config", "server-side": serverSide,
	} {
		goes(t, s, name)
		for i, step := range []string{create, apply, apply, serverSide, serverSide, replace, replace, apply} {
			manifest := strings.Replace(usual(t, name), "storage: 1Gi", fmt.Sprintf("storage: %dGi", i/2+1), 1)
			out, err := s.Kubectl(t.Context(), append(strings.Fields(step), "-f", file(t, manifest))...)
			if err != nil || strings.Contains(out, warned) {
				t.Errorf("%s, step %d, kubectl %s: %v: %s", name, i, step, err, out)
			}
			if got := named(t, s, name); got != "rot/web" {
				t.Errorf("%s, step %d, kubectl %s: it publishes with %s", name, i, step, got)
			}
		}
	}
}

// secretIsLeft makes volumes that are as their authors want them, and sends one again that was there before.
func secretIsLeft(t *testing.T, s *kube.Server) {
	t.Helper()
	for name, tc := range map[string]struct{ manifest, publishes string }{
		"both":      {volume("both", "", ours+stage+publish), "elsewhere/other"},
		"published": {volume("published", "", ours+publish), "elsewhere/other"},
		"foreign":   {volume("foreign", "", "driver: example.org"+stage), "/"},
		"open":      {volume("open", "", ours), "/"},
		"dataset":   {volume("dataset", objects.DatasetLabel+": d", ours+stage), "/"},
		"before":    {usual(t, "before"), "/"},
	} {
		goes(t, s, name)
		for _, again := range [][]string{{"apply"}, {"apply", "--server-side"}, {"replace"}} {
			out, err := s.Kubectl(t.Context(), append(again, "-f", file(t, tc.manifest))...)
			if err != nil || strings.Contains(out, warned) {
				t.Errorf("%s, kubectl %s: %v: %s", name, strings.Join(again, " "), err, out)
			}
		}
		if got := named(t, s, name); got != tc.publishes {
			t.Errorf("%s publishes with %s, want %s", name, got, tc.publishes)
		}
	}
	// Another Secret is another volume, as ever.
	other := volume("both", "", ours+stage)
	out, err := s.Kubectl(t.Context(), "replace", "-f", file(t, other))
	if err == nil || !strings.Contains(out, "immutable") {
		t.Errorf("the Secret of a publish is changed: %v: %s", err, out)
	}
}

// TestSecretPolicyIsServed renders the chart for API servers of several versions.
func TestSecretPolicyIsServed(t *testing.T) {
	const group = "admissionregistration.k8s.io/"
	for _, tc := range []struct{ serves, want []string }{
		{nil, nil},
		{[]string{"v1beta1"}, []string{"v1beta1"}},
		{[]string{"v1"}, []string{"v1"}},
		{[]string{"v1beta1", "v1"}, []string{"v1"}},
	} {
		args := []string{"template", "millrace", chart}
		for _, version := range tc.serves {
			args = append(args, "--api-versions", group+version+"/MutatingAdmissionPolicy")
		}
		out, err := helm(t, args...)
		must(t, err)
		found := map[string]*unstructured.Unstructured{}
		for _, o := range parse(t, out) {
			if strings.HasSuffix(o.GetName(), "-secrets.csi.millrace.io") && strictly(t, "the chart", o) {
				found[o.GetKind()+" "+strings.TrimPrefix(o.GetAPIVersion(), group)] = o
			}
		}
		want := []string{"ValidatingAdmissionPolicy v1", "ValidatingAdmissionPolicyBinding v1"}
		for _, version := range tc.want {
			want = append(want, "MutatingAdmissionPolicy "+version, "MutatingAdmissionPolicyBinding "+version)
		}
		for _, kind := range want {
			if found[kind] == nil {
				t.Errorf("of an API server that serves %v the chart lacks the %s", tc.serves, kind)
			}
			delete(found, kind)
		}
		if len(found) > 0 {
			t.Errorf("for an API server that serves %v the chart has %v, too", tc.serves, found)
		}
	}
}
