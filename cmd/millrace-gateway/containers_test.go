package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/yaml"
	sigsyaml "sigs.k8s.io/yaml"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/gateway"
	"millrace.io/millrace/cmd/command"
	"millrace.io/millrace/cmd/commandline"
	"millrace.io/millrace/controller/api/v1alpha1"
	"millrace.io/millrace/controller/objects"
)

// parseGateway reads the arguments without running the gateway.
func parseGateway(args []string) (*gatewayConfig, error) {
	f, c := newGateway()
	f.Runs(func(rest []string, _ io.Writer) error { return c.take(f, rest) })
	return c, command.Execute(f.Command, args, io.Discard)
}

// planned is what specs become.
func planned(t *testing.T, specs string) *objects.Plan {
	t.Helper()
	in := objects.Input{
		Keys: gateway.NewKeys(), Secrets: map[string]*corev1.Secret{},
		Settings: objects.Settings{
			AlluxioImage: "alluxio/alluxio:2.9.5", MillraceImage: "millrace:v1",
			Driver: "csi.millrace.io", Namespace: "millrace-system",
		},
	}
	documents := yaml.NewYAMLReader(bufio.NewReader(strings.NewReader(specs)))
	for {
		doc, err := documents.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		secret, dataset, runtime := &corev1.Secret{}, &v1alpha1.Dataset{}, &v1alpha1.AlluxioRuntime{}
		switch {
		case bytes.Contains(doc, []byte("kind: Secret")):
			err = errors.Join(err, sigsyaml.Unmarshal(doc, secret))
			secret.Data = map[string][]byte{}
			for k, v := range secret.StringData {
				secret.Data[k] = []byte(v)
			}
			in.Secrets[secret.Name] = secret
		case bytes.Contains(doc, []byte("kind: Dataset")):
			in.Dataset, err = dataset, errors.Join(err, sigsyaml.Unmarshal(doc, dataset))
		default:
			in.Runtime, err = runtime, errors.Join(err, sigsyaml.Unmarshal(doc, runtime))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	in.Dataset.Namespace, in.Runtime.Namespace = "default", "default"
	plan, problems := objects.Desired(in)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	return plan
}

// gatewaySpecs are a Dataset behind two gateways, of which one has a password.
func gatewaySpecs(one, two string) string {
	return fmt.Sprintf(`
apiVersion: v1
kind: Secret
metadata: {name: web}
stringData: {headers: "Authorization,Bearer open = sesame # not a comment,X-Who,me\n"}
---
apiVersion: data.fluid.io/v1alpha1
kind: Dataset
metadata: {name: pages}
spec:
  mounts:
  - mountPoint: %s
    name: one
    options: {no_slash: "true", alluxio.user.file.metadata.sync.interval: 1h}
    encryptOptions: [{name: headers, valueFrom: {secretKeyRef: {name: web, key: headers}}}]
  - {mountPoint: "%s", name: two}
---
apiVersion: data.fluid.io/v1alpha1
kind: AlluxioRuntime
metadata: {name: pages}
spec:
  replicas: 1
  tieredstore: {levels: [{mediumtype: MEM, quota: 2Gi}]}
`, one, two)
}

// TestGatewayContainers has the containers that the controller makes for gateways understood by the gateway's own
// flags, with the files of its Secret: what they say is what Alluxio is told to mount.
func TestGatewayContainers(t *testing.T) {
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/one/" && (r.Header.Get("Authorization") != "Bearer open = sesame # not a comment" ||
			r.Header.Get("X-Who") != "me") {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		w.Header().Set("Content-Type", "text/html")
		_, _ = io.WriteString(w, `<a href="file">file</a>`)
	}))
	defer web.Close()
	plan := planned(t, gatewaySpecs(web.URL+"/one/", web.URL+"/two/"))
	dir := t.TempDir()
	pods := map[string]corev1.PodSpec{}
	for _, o := range plan.Objects {
		switch o := o.(type) {
		case *corev1.Secret:
			if o.Name != "pages-gateway" {
				continue
			}
			for name, data := range o.Data {
				// As kubelet shows them to the pod's group.
				if err := errors.Join(os.WriteFile(filepath.Join(dir, name), data, 0o440),
					os.Chmod(filepath.Join(dir, name), 0o440)); err != nil {
					t.Fatal(err)
				}
			}
		case *appsv1.StatefulSet:
			pods[o.Name] = o.Spec.Template.Spec
		}
	}
	for set, spec := range pods {
		for i := range spec.Containers {
			if c := &spec.Containers[i]; c.Name == "gateway" {
				if n := checkGateways(t, c, dir, plan); n != 2 {
					t.Errorf("%s has %d gateways, want 2", set, n)
				}
			}
		}
	}
}

// checkGateways understands a container, whose files are in dir, and each gateway that it runs; it counts them.
func checkGateways(t *testing.T, container *corev1.Container, dir string, plan *objects.Plan) int {
	t.Helper()
	at := container.VolumeMounts[0].MountPath
	if container.Args[0] != "gateway" {
		t.Fatalf("the container %s runs %q", container.Name, container.Args)
	}
	all, err := parseGateway(container.Args[1:])
	if err != nil {
		t.Fatal(err)
	}
	_, door, err := net.SplitHostPort(all.probes)
	if err != nil || all.logFormat != "json" {
		t.Errorf("it logs %s: %v", all.logFormat, err)
	}
	if port := container.LivenessProbe.HTTPGet.Port.String(); port != door ||
		strconv.Itoa(int(container.Ports[0].ContainerPort)) != door {
		t.Errorf("health is on %s, and asked for on %s", all.probes, port)
	}
	text, err := os.ReadFile(strings.Replace(all.each, at, dir, 1))
	if err != nil {
		t.Fatal(err)
	}
	var lists [][]string
	if err := json.Unmarshal(text, &lists); err != nil {
		t.Fatal(err)
	}
	for _, args := range lists {
		for i, a := range args {
			args[i] = strings.Replace(a, at, dir, 1)
		}
		checkGateway(t, container, args, plan)
	}
	return len(lists)
}

// checkGateway understands the arguments of one gateway.
func checkGateway(t *testing.T, container *corev1.Container, args []string, plan *objects.Plan) {
	t.Helper()
	c, err := parseGateway(args)
	if err != nil {
		t.Fatalf("%s: %v", container.Name, err)
	}
	if !c.listen.Addr().IsLoopback() || c.blockSize != 512<<20 {
		t.Errorf("%s listens on %s and has blocks of %d", c.bucket, c.listen, c.blockSize)
	}
	_, probes, err := net.SplitHostPort(c.probes)
	known := func(p corev1.ContainerPort) bool { return strconv.Itoa(int(p.ContainerPort)) == probes }
	if err != nil || !slices.ContainsFunc(container.Ports, known) {
		t.Errorf("%s: health is on %s, which is no port of the container: %v", c.bucket, c.probes, err)
	}
	_, keys, _, err := c.loadKeys()
	if err != nil {
		t.Fatal(err)
	}
	mounted := false
	for _, m := range plan.Mounts {
		if m.Source != gateway.AlluxioURI(c.bucket) {
			continue
		}
		mounted = true
		for name, want := range gateway.AlluxioOptions("http://"+c.listen.String(), c.source, keys) {
			if m.Properties[name] != want {
				t.Errorf("the mount %s has %s=%q, want %q", m.Path, name, m.Properties[name], want)
			}
		}
	}
	if !mounted {
		t.Errorf("no mount is of the bucket %s", c.bucket)
	}
	store, err := c.openSource(t.Context(), commandline.NewLog(io.Discard, "error", "text"))
	if err != nil {
		t.Errorf("%s: %v", container.Name, err)
		return
	}
	if err := store.List(t.Context(), "", func(cacheclient.Info) error { return nil }); err != nil {
		t.Errorf("%s: %v", container.Name, err)
	}
	_ = store.Close()
}
