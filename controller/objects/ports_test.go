package objects

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"millrace.io/millrace/controller/api/v1alpha1"
)

// portsTaken are the ports of the node that the pods of a plan take, by container and name. One is taken twice where
// two of them cannot be on one node.
func portsTaken(t *testing.T, in Input) map[int32]string {
	t.Helper()
	plan, problems := Desired(in)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	taken := map[int32]string{}
	for _, o := range plan.Objects {
		spec := podSpecOf(o)
		if spec == nil || !spec.HostNetwork {
			continue
		}
		for i := range spec.Containers {
			c := &spec.Containers[i]
			for _, p := range c.Ports {
				who := fmt.Sprintf("%s %s %s", o.GetName(), c.Name, p.Name)
				if other, twice := taken[p.ContainerPort]; twice {
					t.Errorf("%s and %s have the port %d", other, who, p.ContainerPort)
				}
				taken[p.ContainerPort] = who
			}
		}
	}
	return taken
}

// TestPortsOfNodes has all of two Datasets on one node's network, each with several gateways: no two want one port, and
// gateways of one mount serve S3 on the port that its options name.
func TestPortsOfNodes(t *testing.T) {
	in := read(t, "testdata/everything.yaml")
	in.Runtime, in.Dataset = in.Runtime.DeepCopy(), in.Dataset.DeepCopy()
	in.Runtime.Spec.Master.NetworkMode, in.Runtime.Spec.Worker.NetworkMode = v1alpha1.HostNetwork, v1alpha1.HostNetwork
	first := portsTaken(t, in)
	if len(first) < 11 {
		t.Fatalf("they take %d ports: %v", len(first), first)
	}
	other := in
	other.Dataset, other.Runtime = in.Dataset.DeepCopy(), in.Runtime.DeepCopy()
	other.Dataset.Name, other.Runtime.Name = "other", "other"
	// What the walkthrough says of a port stays as it is said.
	other.Runtime.Spec.Master.Ports = map[string]int{"rpc": 21999}
	for port := range portsTaken(t, other) {
		if was, taken := first[port]; taken {
			t.Errorf("another Dataset wants the port %d of %s", port, was)
		}
	}
	plan, _ := Desired(in)
	text := string(gatewaysIn(t, plan, "master-gateways.json")) + string(gatewaysIn(t, plan, "worker-gateways.json"))
	for i := range plan.Mounts {
		endpoint, ok := strings.CutPrefix(plan.Mounts[i].Properties["alluxio.underfs.s3.endpoint"], "http://")
		if !ok {
			continue
		}
		if n := strings.Count(text, `"`+endpoint+`"`); n != 2 {
			t.Errorf("%d gateways listen on %s, and a master and a worker need one each", n, endpoint)
		}
	}
	if n := strings.Count(text, "--share-port"); n != 4 {
		t.Errorf("%d of 4 gateways share their port", n)
	}
}

// TestGatewayPorts has the first port of gateways be settable, and checked.
func TestGatewayPorts(t *testing.T) {
	in := read(t, "testdata/everything.yaml")
	in.Runtime = in.Runtime.DeepCopy()
	in.Runtime.Spec.Master.Ports = map[string]int{"gateway": 7000}
	in.Runtime.Spec.Worker.Ports = map[string]int{"gateway": 7100}
	taken := portsTaken(t, in)
	for port, suffix := range map[int32]string{7100: "gateway gw", 7101: "gateway gw-0", 7102: "gateway gw-1"} {
		if !strings.HasSuffix(taken[port], suffix) {
			t.Errorf("the port %d is not a gateway's of the worker: %v", port, slices.Sorted(maps.Values(taken)))
		}
	}
	in.Runtime.Spec.Worker.Ports["gateway"] = 65534
	if _, problems := Desired(in); len(problems) != 1 ||
		problems[0].Field != "AlluxioRuntime.spec.worker.ports[gateway]" {
		t.Errorf("two gateways from the port 65534 on: %v", problems)
	}
}

// gatewaysIn is a file of gateways in their Secret.
func gatewaysIn(t *testing.T, plan *Plan, key string) []byte {
	t.Helper()
	for _, o := range plan.Objects {
		if s, ok := o.(*corev1.Secret); ok && s.Data[key] != nil {
			return s.Data[key]
		}
	}
	t.Fatalf("no Secret has %s", key)
	return nil
}

// podSpecOf is the pods' of a StatefulSet, nil for other objects.
func podSpecOf(o Object) *corev1.PodSpec {
	if set, ok := o.(*appsv1.StatefulSet); ok {
		return &set.Spec.Template.Spec
	}
	return nil
}
