package deploy_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	sigsyaml "sigs.k8s.io/yaml"

	"millrace.io/millrace/sanity/kube"
)

// kubectl runs kubectl, which must succeed.
func kubectl(t *testing.T, s *kube.Server, args ...string) string {
	t.Helper()
	out, err := s.Kubectl(t.Context(), args...)
	if err != nil {
		t.Fatalf("kubectl %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return out
}

// theNode is a node that only the API server knows, so that DaemonSets make a pod for it.
const theNode = `{"apiVersion": "v1", "kind": "Node", "metadata": {"name": "one", "labels": {"kubernetes.io/os": "linux"}},
	"spec": {"taints": [{"key": "csi.millrace.io/not-ready", "effect": "NoSchedule"}]}}`

// TestInstall installs, upgrades and removes, in each of the ways that deploy/README.md tells, on a real API server
// whose controllers make pods. Whatever is refused, by validation, admission, Pod Security or a quota, shows here.
func TestInstall(t *testing.T) {
	kube.Need(t)
	s := shared.Get(t)
	kubectl(t, s, "apply", "-f", file(t, theNode))
	t.Run("kustomize", func(t *testing.T) {
		kubectl(t, s, "apply", "--server-side", "-k", base)
		kubectl(t, s, "apply", "--server-side", "-f", file(t, kube.Served(kubectl(t, s, "kustomize", naming))))
		pods(t, s, "millrace-system")
		onlyTheTaint(t, s)
		if out := kubectl(t, s, "apply", "--server-side", "--dry-run=server", "-k", base, "-o",
			"name"); !strings.Contains(out, "csidriver.storage.k8s.io/csi.millrace.io") {
			t.Errorf("applied again it says %s", out)
		}
		undeploy(t, s)
	})
	t.Run("helm", func(t *testing.T) { installByHelm(t, s) })
}

// policies are the kinds of policies that are installed, and their bindings.
const policies = "validatingadmissionpolicy,validatingadmissionpolicybinding," +
	"mutatingadmissionpolicy,mutatingadmissionpolicybinding"

// undeploy removes what was installed, as `make undeploy` does: not while a Dataset is left, and then everything.
func undeploy(t *testing.T, s *kube.Server) {
	t.Helper()
	config, err := s.Kubeconfig("undeploy", "system:masters")
	must(t, err)
	run := func() (string, error) {
		out, err := exec.CommandContext(t.Context(), "make", "-s", "-C", root, "undeploy",
			"KUBECTL="+s.KubectlPath()+" --kubeconfig="+config).CombinedOutput()
		return string(out), err
	}
	kubectl(t, s, "apply", "-f",
		file(t, "{apiVersion: data.fluid.io/v1alpha1, kind: Dataset, metadata: {name: left}, spec: {mounts: "+
			"[{mountPoint: 'https://example.org/'}]}}"))
	if out, err := run(); err == nil || !strings.Contains(out, "1 Datasets, AlluxioRuntimes and DataLoads are left") {
		t.Errorf("with a Dataset make undeploy ends with %v: %s", err, out)
	}
	kubectl(t, s, "get", "-n", "millrace-system", "deployment", "millrace-controller")
	kubectl(t, s, "delete", "dataset", "left")
	// The second time nothing is there.
	for range 2 {
		if out, err := run(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	}
	kinds := "namespace,crd,csidriver,clusterrole,clusterrolebinding," + policies
	left := kubectl(t, s, "get", kinds, "-o", "name", "-l", "app.kubernetes.io/part-of=millrace")
	if strings.Contains(left, "millrace") || strings.Contains(left, "fluid") {
		t.Errorf("make undeploy leaves %s", left)
	}
}

func installByHelm(t *testing.T, s *kube.Server) {
	t.Helper()
	config, err := s.Kubeconfig("helm", "system:masters")
	must(t, err)
	run := func(args ...string) {
		t.Helper()
		if out, err := helm(t, append(args, "--kubeconfig", config, "--namespace", "cache")...); err != nil {
			t.Fatalf("helm %s: %v: %s", strings.Join(args, " "), err, out)
		}
	}
	// Fluid's CRDs, or such as were applied by hand, belong to no release.
	old := strings.Replace(text(t, "deploy/crd/data.fluid.io_datasets.yaml"), "- dataset\n", "- ds\n", 1)
	kubectl(t, s, "create", "-f", file(t, old))
	if out, err := helm(t, "install", "millrace", chart, "--create-namespace", "--kubeconfig", config, "--namespace",
		"cache"); err == nil || !strings.Contains(out, "ownership") {
		t.Errorf("without --take-ownership: %v: %s", err, out)
	}
	run("install", "millrace", chart, "--create-namespace", "--take-ownership", "--force-conflicts")
	if names := kubectl(t, s, "get", "crd", "datasets.data.fluid.io", "-o",
		"jsonpath={.spec.names.shortNames}"); names != `["dataset"]` {
		t.Errorf("the CRD that was there before has the short names %s", names)
	}
	pods(t, s, "cache")
	kubectl(t, s, "get", "mutatingadmissionpolicy,mutatingadmissionpolicybinding", "publish-secrets.csi.millrace.io")
	var role struct {
		Subjects []struct{ Name, Namespace string }
	}
	must(t, json.Unmarshal([]byte(kubectl(t, s, "get", "clusterrolebinding", "millrace-controller", "-o", "json")),
		&role))
	if len(role.Subjects) != 1 || role.Subjects[0].Namespace != "cache" {
		t.Errorf("the rights are given to %v", role.Subjects)
	}
	kubectl(t, s, "-n", "cache", "get", "role", "millrace-controller")

	before := kubectl(t, s, "-n", "cache", "get", "daemonset", "millrace-node", "-o", "jsonpath={.metadata.generation}")
	run("upgrade", "millrace", chart, "--set", "agent.memory=96Mi,controller.startupTaint=false")
	if args := kubectl(t, s, "-n", "cache", "get", "daemonset", "millrace-agent", "-o",
		"jsonpath={.spec.template.spec.containers[0].args}"); !strings.Contains(args, "--memory=96Mi") {
		t.Errorf("after the upgrade the agent has the arguments %s", args)
	}
	if after := kubectl(t, s, "-n", "cache", "get", "daemonset", "millrace-node", "-o",
		"jsonpath={.metadata.generation}"); after != before {
		t.Errorf("an upgrade of the agent changed the driver's DaemonSet: generation %s became %s", before, after)
	}
	if out, err := s.Kubectl(t.Context(), "get", "clusterrole", "millrace-controller-nodes"); err == nil {
		t.Errorf("without the startup taint the right to change nodes stays: %s", out)
	}
	run("uninstall", "millrace")
	for _, crd := range []string{"datasets", "alluxioruntimes", "dataloads"} {
		kubectl(t, s, "get", "crd", crd+".data.fluid.io")
	}
	if out, err := s.Kubectl(t.Context(), "get", "csidriver", "csi.millrace.io"); err == nil {
		t.Errorf("the release has gone and left %s", out)
	}
	run("install", "millrace", chart)
	run("uninstall", "millrace")
}

// onlyTheTaint tries what the controller's right to patch nodes is good for.
func onlyTheTaint(t *testing.T, s *kube.Server) {
	t.Helper()
	config, err := s.Config("system:serviceaccount:millrace-system:millrace-controller")
	must(t, err)
	c, err := client.New(config, client.Options{})
	must(t, err)
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "one"}}
	patch := func(text string) error {
		return c.Patch(t.Context(), node.DeepCopy(), client.RawPatch(types.MergePatchType, []byte(text)))
	}
	const mine, other = `{"key": "csi.millrace.io/not-ready", "effect": "NoSchedule"}`,
		`{"key": "example.org/gpu", "effect": "NoSchedule"}`
	kubectl(t, s, "patch", "node", "one", "--type=merge", "-p", `{"spec": {"taints": [`+mine+", "+other+`]}}`)
	// A policy takes a moment until it is in force.
	tries := 0
	eventually(t, "a label is refused", func() string {
		tries++
		if err := patch(fmt.Sprintf(`{"metadata": {"labels": {"try": "%d"}}}`, tries)); err == nil ||
			!strings.Contains(err.Error(), "changes nothing of a node but its taints") {
			return fmt.Sprint("it ends with ", err)
		}
		return ""
	})
	for _, tc := range []struct{ patch, says string }{
		{`{"spec": {"taints": [` + mine + `]}}`, "changes no other"},
		{
			`{"spec": {"taints": [` + mine + ", " + other + `, {"key": "more", "effect": "NoExecute"}]}}`,
			"changes no other",
		},
		{`{"spec": {"unschedulable": true}}`, "changes nothing of a node but its taints"},
		{`{"metadata": {"annotations": {"a": "b"}}}`, "changes nothing of a node but its taints"},
		{`{"metadata": {"finalizers": ["example.org/mine"]}}`, "changes nothing of a node but its taints"},
	} {
		if err := patch(tc.patch); err == nil || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("the patch %s ends with %v, want %q", tc.patch, err, tc.says)
		}
	}
	must(t, patch(`{"spec": {"taints": [`+other+`]}}`))
	if err := c.Delete(t.Context(), node); !apierrors.IsForbidden(err) {
		t.Errorf("the controller may delete nodes: %v", err)
	}
}

// pods waits until each workload has made its pods, and looks at what the API server made of them.
func pods(t *testing.T, s *kube.Server, namespace string) {
	t.Helper()
	want := map[string]int{"controller": 2, "node": 1, "agent": 1, "keeper": 1}
	eventually(t, "all pods are made", func() string {
		var list corev1.PodList
		must(t, json.Unmarshal([]byte(kubectl(t, s, "-n", namespace, "get", "pod", "-o", "json")), &list))
		have := map[string]int{}
		for i := range list.Items {
			p := &list.Items[i]
			have[p.Labels["app.kubernetes.io/component"]]++
			if p.Spec.Priority == nil || *p.Spec.Priority < 2_000_000_000 {
				t.Errorf("%s has the priority %v", p.Name, p.Spec.Priority)
			}
		}
		if fmt.Sprint(have) == fmt.Sprint(want) {
			return ""
		}
		return fmt.Sprintf("there are %v, want %v: %s", have, want, kubectl(t, s, "-n", namespace, "get", "events"))
	})
}

// TestValuesAreAccepted renders the chart with values other than the defaults, and has the API server look at each
// object.
func TestValuesAreAccepted(t *testing.T) {
	kube.Need(t)
	s := shared.Get(t)
	if overlay := kubectl(t, s, "kustomize", root+"/deploy/kustomize/monitoring"); !strings.Contains(overlay,
		"kind: PrometheusRule") || !strings.Contains(overlay, "kind: CSIDriver") {
		t.Errorf("the overlay with monitoring is\n%s", overlay)
	}
	if out, err := s.Kubectl(t.Context(), "create", "namespace", "values"); err != nil &&
		!strings.Contains(out, "AlreadyExists") {
		t.Fatal(err, out)
	}
	for _, values := range [][]string{
		{
			"controller.startupTaint=false", "networkPolicy=false", "maxUnavailable=1",
			"image=example.org/millrace@sha256:" + strings.Repeat("ab", 32),
		},
		{
			"tierDirs={/dev/shm,/mnt/ssd-0}", "localSources={/srv/data}", "nodeSelector.pool=cache",
			"imagePullSecrets={one,two}", "kubeletDir=/var/snap/kubelet",
		},
		{
			"monitoring.dashboard=true", "monitoring.labels.release=prometheus", "node.resources=null",
			"controller.replicas=1",
		},
	} {
		for _, o := range render(t, values...) {
			if o.GetNamespace() != "" {
				// It is there already.
				o.SetNamespace("values")
			}
			raw, err := sigsyaml.Marshal(o.Object)
			must(t, err)
			if out, err := s.Kubectl(t.Context(), "apply", "--server-side", "--validate=strict", "--dry-run=server",
				"-f", file(t, string(raw))); err != nil {
				t.Errorf("%v: %s %s: %v: %s", values, o.GetKind(), o.GetName(), err, out)
			}
		}
	}
}

// file is a file with that text.
func file(t *testing.T, content string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "object.yaml")
	must(t, os.WriteFile(name, []byte(content), 0o600))
	return name
}

// patience bounds what is waited for; only a test that fails waits so long.
const patience = 3 * time.Minute

// eventually asks until the answer is "", and fails with the last answer when it takes too long.
func eventually(t *testing.T, what string, ask func() string) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		last := ask()
		if last == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited for: %s; %s", what, last)
		}
		time.Sleep(200 * time.Millisecond)
	}
}
