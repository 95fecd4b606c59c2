package deploy_test

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	clientgo "k8s.io/client-go/kubernetes/scheme"
	sigsyaml "sigs.k8s.io/yaml"

	"millrace.io/millrace/controller/api/v1alpha1"
	"millrace.io/millrace/driver"
	"millrace.io/millrace/sanity/kube"
)

// theirKinds are API groups of other projects. Their schemas are on the API server of TestExamples.
var theirKinds = []string{"serving.kserve.io", "kustomize.config.k8s.io"}

// below returns the files below a directory of the repository that end in ext, relative to the root.
func below(t *testing.T, dir, ext string) []string {
	t.Helper()
	var found []string
	must(t, filepath.WalkDir(filepath.Join(root, dir), func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && strings.HasSuffix(path, ext) {
			rel, err := filepath.Rel(root, path)
			must(t, err)
			found = append(found, rel)
		}
		return err
	}))
	return found
}

// strictly decodes an object of Kubernetes' API or ours, and fails for a field that does not exist. It reports false
// for objects of others.
func strictly(t *testing.T, where string, o *unstructured.Unstructured) bool {
	t.Helper()
	if slices.Contains(theirKinds, o.GroupVersionKind().Group) {
		return false
	}
	scheme := runtime.NewScheme()
	must(t, clientgo.AddToScheme(scheme))
	must(t, v1alpha1.AddToScheme(scheme))
	text, err := sigsyaml.Marshal(o.Object)
	must(t, err)
	decoder := serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDeserializer()
	if _, _, err := decoder.Decode(text, nil, nil); err != nil {
		t.Errorf("%s: %s %s: %v", where, o.GetKind(), o.GetName(), err)
	}
	return true
}

// TestExamplesDecode decodes each example strictly, and has the driver look at the attributes of classes and volumes.
func TestExamplesDecode(t *testing.T) {
	files := below(t, "deploy/examples", ".yaml")
	checked := map[string]bool{}
	for _, file := range files {
		for _, o := range parse(t, text(t, file)) {
			if !strictly(t, file, o) {
				continue
			}
			switch o.GetKind() {
			case "StorageClass":
				var class storagev1.StorageClass
				must(t, runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, &class))
				for key := range class.Parameters {
					if strings.HasPrefix(key, "csi.storage.k8s.io/") {
						delete(class.Parameters, key)
					}
				}
				if err := driver.CheckClass(class.Parameters, class.MountOptions); err != nil {
					t.Errorf("%s: %v", file, err)
				}
			case "Pod":
				var pod corev1.Pod
				must(t, runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, &pod))
				for _, v := range pod.Spec.Volumes {
					if v.CSI == nil {
						continue
					}
					checked["inline"] = true
					if err := driver.CheckClass(v.CSI.VolumeAttributes, nil); err != nil ||
						v.CSI.Driver != driver.Name {
						t.Errorf("%s: the driver %s: %v", file, v.CSI.Driver, err)
					}
				}
			}
			checked[o.GetKind()] = true
		}
	}
	for _, kind := range []string{
		"Dataset", "AlluxioRuntime", "StorageClass", "PersistentVolumeClaim", "Deployment",
		"Job", "inline",
	} {
		if !checked[kind] {
			t.Errorf("no example has a %s", kind)
		}
	}
}

// TestExamples has a real API server look at each example, with KServe's CRDs beside ours.
func TestExamples(t *testing.T) {
	kube.Need(t)
	s := shared.Get(t)
	for _, crds := range []string{root + "/deploy/crd", "testdata/kserve.yaml"} {
		kubectl(t, s, "apply", "--server-side", "-f", crds)
		kubectl(t, s, "wait", "--for=condition=Established", "-f", crds)
	}
	for _, name := range below(t, "deploy/examples", ".yaml") {
		switch {
		case filepath.Base(name) == "kustomization.yaml":
			kubectl(t, s, "apply", "--dry-run=server", "--validate=strict", "-k",
				filepath.Join(root, filepath.Dir(name)))
		default:
			kubectl(t, s, "apply", "--dry-run=server", "--validate=strict", "-f", filepath.Join(root, name))
		}
	}
	// What the schema does not know is refused, or the test would see nothing.
	for _, change := range [][2]string{
		{"storageUri:", "storageURL:"},
		{"supportedModelFormats:", "modelFormats:"},
		{"maxReplicas: 4", "maxReplicas: many"},
	} {
		wrong := strings.Replace(text(t, "deploy/examples/kserve.yaml"), change[0], change[1], 1)
		if out, err := s.Kubectl(t.Context(), "apply", "--dry-run=server", "--validate=strict", "-f",
			file(t, wrong)); err == nil {
			t.Errorf("with %s the API server says %s", change[1], out)
		}
	}
}

// TestExamplesCompile has Python parse each script of the examples.
func TestExamplesCompile(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("python3 is not installed: make setup")
	}
	scripts := below(t, "deploy/examples", ".py")
	if len(scripts) < 2 {
		t.Fatalf("found only the scripts %v", scripts)
	}
	for _, script := range scripts {
		cmd := exec.CommandContext(t.Context(), python, "-m", "py_compile", filepath.Join(root, script))
		cmd.Env = append(os.Environ(), "PYTHONPYCACHEPREFIX="+t.TempDir())
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", script, err, out)
		}
	}
}
