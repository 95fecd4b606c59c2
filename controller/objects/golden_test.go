package objects

import (
	"bufio"
	"bytes"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/yaml"
	sigsyaml "sigs.k8s.io/yaml"

	"millrace.io/millrace/cacheclient/gateway"
	"millrace.io/millrace/controller/api/v1alpha1"
)

var update = flag.Bool("update", false, "write the golden files")

// settings are those of all tests of this package.
var settings = Settings{
	AlluxioImage: "alluxio/alluxio:2.9.5", MillraceImage: "example.org/millrace:v1", Driver: "csi.millrace.io",
	Namespace: "millrace-system",
}

// read returns what the documents of a file say, with the API server's defaults.
func read(t *testing.T, file string) Input {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, raw)
}

func parse(t *testing.T, raw []byte) Input {
	t.Helper()
	in := Input{
		Settings: settings, Secrets: map[string]*corev1.Secret{},
		Keys: gateway.Keys{AccessKeyID: "MILLRACEEXAMPLE", SecretAccessKey: "example"},
	}
	documents := yaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(raw)))
	for {
		doc, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return in
		}
		if err != nil {
			t.Fatal(err)
		}
		var kind metav1.TypeMeta
		must(t, sigsyaml.Unmarshal(doc, &kind))
		switch kind.Kind {
		case "Dataset":
			in.Dataset = &v1alpha1.Dataset{}
			must(t, sigsyaml.UnmarshalStrict(doc, in.Dataset))
			inDefault(in.Dataset)
		case "AlluxioRuntime":
			in.Runtime = &v1alpha1.AlluxioRuntime{}
			must(t, sigsyaml.UnmarshalStrict(doc, in.Runtime))
			inDefault(in.Runtime)
			in.Runtime.UID = "00000000-0000-0000-0000-000000000001"
		case "Secret":
			s := &corev1.Secret{}
			must(t, sigsyaml.UnmarshalStrict(doc, s))
			s.Data = map[string][]byte{}
			for k, v := range s.StringData {
				s.Data[k] = []byte(v)
			}
			in.Secrets[s.Name] = s
		default:
			t.Fatalf("a document of the kind %q", kind.Kind)
		}
	}
}

func inDefault(o metav1.Object) {
	if o.GetNamespace() == "" {
		o.SetNamespace(metav1.NamespaceDefault)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestGolden compares what specs become with the files in testdata, whose names end in golden.yaml.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.yaml")
	must(t, err)
	ran := 0
	for _, file := range files {
		if strings.HasSuffix(file, ".golden.yaml") {
			continue
		}
		ran++
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			plan, problems := Desired(read(t, file))
			for _, p := range problems {
				t.Error(p)
			}
			if t.Failed() {
				return
			}
			got := render(t, plan)
			golden := strings.TrimSuffix(file, ".yaml") + ".golden.yaml"
			if *update {
				must(t, os.WriteFile(golden, got, 0o600))
			}
			want, err := os.ReadFile(golden)
			must(t, err)
			if !bytes.Equal(got, want) {
				t.Errorf("%s is not what it was; look at the difference after go test -run TestGolden -update:\n%s",
					golden, firstDifference(got, want))
			}
		})
	}
	if ran == 0 {
		t.Fatal("there are no specs in testdata")
	}
}

// render writes a plan as a file that people read.
func render(t *testing.T, plan *Plan) []byte {
	t.Helper()
	var out bytes.Buffer
	add := func(v any) {
		text, err := sigsyaml.Marshal(v)
		must(t, err)
		out.WriteString("---\n")
		out.Write(text)
	}
	for _, o := range plan.Objects {
		add(o)
	}
	add(map[string]any{
		"masters": plan.Masters, "mounts": plan.Mounts, "unsupported": plan.Unsupported,
		"user": plan.User, "pinned": plan.Pinned, "sized": plan.Sized,
		"clean": map[string]any{"attempts": plan.Clean.Attempts, "patience": plan.Clean.Patience.String()},
	})
	return out.Bytes()
}

func firstDifference(got, want []byte) string {
	g, w := strings.Split(string(got), "\n"), strings.Split(string(want), "\n")
	for i := range min(len(g), len(w)) {
		if g[i] != w[i] {
			return "got  " + g[i] + "\nwant " + w[i]
		}
	}
	return "one is the beginning of the other"
}
