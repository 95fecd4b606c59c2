package e2e

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"millrace.io/millrace/sanity/forward"
	"millrace.io/millrace/sanity/pattern"
	"millrace.io/millrace/sanity/pki"
	"millrace.io/millrace/sanity/testbed"
)

// What only the proxy knows, and what it wants to be told.
const (
	innerName     = "data.inner.test"
	innerS3       = "127.0.0.1:7071"
	proxyAddress  = mirrorAddress + ":3128"
	proxyPassword = "hunter2"
)

// testNetworks has sources with an authority of their own, behind a proxy with a password, and of claims.
func testNetworks(t *testing.T) {
	n := &networks{rest: rest{get(t)}}
	n.inOrder(t, []step{
		{"Servers", n.servers},
		{"PathRefused", n.pathRefused},
		{"Dataset", n.dataset},
		{"Volume", n.volume},
		{"NothingTold", n.nothingTold},
		{"MountsLater", n.mountsLater},
		{"Claims", n.claims},
		{"Deleted", n.deleted},
	})
}

// networks is a web server with an authority of its own, and a proxy.
type networks struct {
	rest
	authority *pki.Authority
	proxy     *forward.Proxy
}

// servers starts a web server over TLS, a bucket on the loopback of its machine, and the proxy that reaches it.
func (n *networks) servers(t *testing.T) {
	var err error
	if n.authority, err = pki.New(t.TempDir()); err != nil {
		t.Fatal(err)
	}
	cert, key, err := n.authority.Issue(
		pki.Subject{User: "server", Names: []string{innerName}, Addresses: []net.IP{net.ParseIP(mirrorAddress)}},
	)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	n.serve(
		t,
		mirrorAddress+":8443",
		http.FileServer(http.Dir(n.htdocs())),
		&tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12},
	)
	n.proxy = &forward.Proxy{
		User: "me", Password: proxyPassword, Dial: n.mirror.Dial,
		Names: map[string]string{innerName + ":443": mirrorAddress + ":8443", innerName + ":7071": innerS3},
	}
	n.serve(t, proxyAddress, n.proxy, nil)
	bucket := filepath.Join(n.cluster.Dir(), "s3-inner", "data")
	if err := os.MkdirAll(bucket, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, size := range smallFiles {
		if err := pattern.Write(filepath.Join(bucket, name), name, size); err != nil {
			t.Fatal(err)
		}
	}
	if err := testbed.StartS3(n.ctx, n.mirror, "127.0.0.1", "7071", filepath.Dir(bucket)); err != nil {
		t.Fatal(err)
	}
	n.kubectl(
		t,
		"create",
		"secret",
		"generic",
		"network",
		"--from-literal=ca_cert="+string(n.authority.PEM),
		"--from-literal=HTTPS_PROXY=http://me:"+proxyPassword+"@"+proxyAddress,
		"--from-literal=id="+testbed.S3Key,
		"--from-literal=key="+testbed.S3Secret,
	)
	n.kubectl(t, "create", "secret", "generic", "volume", "--from-literal=ca_cert="+string(n.authority.PEM),
		"--from-literal=HTTPS_PROXY=http://me:"+proxyPassword+"@"+proxyAddress)
}

// serve serves on the mirror's machine until the run ends.
func (n *networks) serve(t *testing.T, address string, handler http.Handler, config *tls.Config) {
	t.Helper()
	l, err := n.mirror.Listen(n.ctx, "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: handler, TLSConfig: config, ReadHeaderTimeout: 10 * time.Second}
	context.AfterFunc(n.ctx, func() { _ = server.Close() })
	go func() {
		if config != nil {
			_ = server.ServeTLS(l, "", "")
		} else {
			_ = server.Serve(l)
		}
	}()
}

// pathRefused names a file of a node, which no source can be told to trust.
func (n *networks) pathRefused(t *testing.T) {
	n.apply(
		t,
		strings.Replace(
			fmt.Sprintf(sharedDataset, "path", 1),
			`, name: path}`,
			`, name: path, options: {ca_cert: /x.pem}}`,
			1,
		),
	)
	want := "Dataset.spec.mounts[0]: has the option ca_cert, which is no certificate in PEM, which begins with " +
		"-----BEGIN CERTIFICATE-----"
	n.says(
		t,
		30*time.Second,
		want,
		"get",
		"dataset",
		"path",
		"-o",
		`jsonpath={.status.conditions[?(@.type=="Valid")].message}`,
	)
	n.kubectl(t, "delete", "datasets,alluxioruntimes", "--all", "--timeout=180s")
}

// networkDataset has a web server with its authority, the same by a name that only the proxy knows, and a bucket there.
const networkDataset = `apiVersion: data.fluid.io/v1alpha1
kind: Dataset
metadata: {name: net}
spec:
  placement: Shared
  sharedEncryptOptions:
    - {name: ca_cert, valueFrom: {secretKeyRef: {name: network, key: ca_cert}}}
  mounts:
    - {mountPoint: "https://` + mirrorAddress + `:8443/small/one/", name: near}
    - mountPoint: https://` + innerName + `/small/two/
      name: inner
      encryptOptions:
        - {name: https_proxy, valueFrom: {secretKeyRef: {name: network, key: HTTPS_PROXY}}}
    - mountPoint: s3://data/
      name: objects
      options:
        alluxio.underfs.s3.endpoint: http://` + innerName + `:7071
        alluxio.underfs.s3.endpoint.region: us-east-1
        alluxio.underfs.s3.disable.dns.buckets: "true"
      encryptOptions:
        - {name: s3a.accessKeyId, valueFrom: {secretKeyRef: {name: network, key: id}}}
        - {name: s3a.secretKey, valueFrom: {secretKeyRef: {name: network, key: key}}}
        - {name: HTTP_PROXY, valueFrom: {secretKeyRef: {name: network, key: HTTPS_PROXY}}}
---
apiVersion: data.fluid.io/v1alpha1
kind: AlluxioRuntime
metadata: {name: net}
spec:
  replicas: 1
  tieredstore: {levels: [{mediumtype: MEM, path: /dev/shm, quota: 256Mi}]}
  master: {replicas: 1}
`

func (n *networks) dataset(t *testing.T) {
	n.apply(t, networkDataset)
	n.bound(t, "net")
	n.apply(t, user("net", "node2", "sha256sum /net/*/*", "runAsNonRoot: true, runAsUser: 1000", "net"))
	logs := n.ran(t, "net")
	for _, name := range []string{"near", "inner", "objects"} {
		hasSmall(t, logs, "/net/"+name+"/")
	}
	for _, address := range []string{innerName + ":443", innerName + ":7071"} {
		if n.proxy.Asked(address) == 0 {
			t.Errorf("the proxy was not asked for %s", address)
		}
	}
	if n.proxy.Asked(mirrorAddress+":8443") > 0 {
		t.Error("what says nothing of a proxy went through it")
	}
}

// volume has an agent read by itself what the Secret of a volume lets it.
func (n *networks) volume(t *testing.T) {
	manifest := user("inline", "node1", "sha256sum /inline/*", "", "inline")
	manifest = strings.Replace(
		manifest,
		"persistentVolumeClaim: {claimName: inline}",
		`csi: {driver: csi.millrace.io, readOnly: true, nodePublishSecretRef: {name: volume}, volumeAttributes: {source: "https://`+innerName+`/small/one/", quota: 64Mi}}`,
		1,
	)
	n.apply(t, manifest)
	hasSmall(t, n.ran(t, "inline"), "/inline/")
}

// nothingTold looks for the proxy's password where people look.
func (n *networks) nothingTold(t *testing.T) {
	for _, args := range [][]string{
		{"get", "datasets,alluxioruntimes,pods,statefulsets,configmaps,events,pv,pvc", "-o", "yaml"},
		{"logs", "net-master-0", "--all-containers"},
		{"logs", "net-worker-0", "--all-containers"},
		{"logs", "-n", namespace, "daemonset/millrace-agent"},
		{"logs", "-n", namespace, "deployment/millrace-controller"},
	} {
		if out := n.kubectl(t, args...); strings.Contains(out, proxyPassword) {
			t.Errorf("kubectl %s shows the password", strings.Join(args, " "))
		}
	}
	n.kubectl(t, "delete", "datasets,alluxioruntimes", "--all", "--timeout=180s")
}

// mountsLater begins with a Dataset without mounts, whose claim is empty, and gives it one.
func (n *networks) mountsLater(t *testing.T) {
	manifest := fmt.Sprintf(sharedDataset, "later", 1)
	begin := strings.Index(manifest, "  mounts:")
	n.apply(t, manifest[:begin]+manifest[strings.Index(manifest, "---\n"):])
	n.bound(t, "later")
	n.says(
		t,
		10*time.Second,
		"the Dataset has no mounts, so that its claim is empty until there are some in spec.mounts",
		"get",
		"dataset",
		"later",
		"-o",
		`jsonpath={.status.conditions[?(@.type=="Ready")].message}`,
	)
	n.apply(
		t,
		user(
			"later",
			"node1",
			"ls -A /later | wc -l; until sha256sum /later/more/* 2>/dev/null; do sleep 0.2; done",
			"",
			"later",
		),
	)
	n.says(t, time.Minute, "Running", "get", "pod", "later", "-o", "jsonpath={.status.phase}")
	added := time.Now()
	n.kubectl(
		t,
		"patch",
		"dataset",
		"later",
		"--type=merge",
		"-p",
		`{"spec":{"mounts":[{"mountPoint":"http://`+mirrorName+`/small/more/","name":"more"}]}}`,
	)
	n.says(t, time.Minute, "Succeeded", "get", "pod", "later", "-o", "jsonpath={.status.phase}")
	withinTime(t, "the first mount of a live Dataset is read", time.Since(added), 10*time.Second)
	logs := n.ran(t, "later")
	if !strings.HasPrefix(logs, "0\n") {
		t.Errorf("the claim of a Dataset without mounts has %q", logs)
	}
	hasSmall(t, logs, "/later/more/")
	n.kubectl(t, "delete", "datasets,alluxioruntimes", "--all", "--timeout=180s")
}

// archive is a claim with a directory of a node, which only that node has.
const archive = `apiVersion: v1
kind: PersistentVolume
metadata: {name: archive}
spec:
  capacity: {storage: 1Gi}
  accessModes: [ReadWriteMany]
  claimRef: {namespace: default, name: archive}
  hostPath: {path: /srv/archive, type: Directory}
  nodeAffinity: {required: {nodeSelectorTerms: [{matchExpressions: [{key: kubernetes.io/hostname, operator: In, values: [node1]}]}]}}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: archive}
spec:
  storageClassName: ""
  volumeName: archive
  accessModes: [ReadWriteMany]
  resources: {requests: {storage: 1Gi}}
---
`

// claims has sources that are a claim of another user than root, all of it and below, at / and elsewhere, web servers
// beside. Masters and workers go where the claim's volume is.
func (n *networks) claims(t *testing.T) {
	n.onNode(
		t,
		"painter",
		"node1",
		"/srv/archive",
		"mkdir -p /d/2024/mine && echo hello >/d/2024/mine/f && chown -R 1201:1201 /d/2024 && chmod -R 0750 /d/2024",
	)
	t.Cleanup(func() {
		_, _ = n.cluster.Kubectl(n.ctx, "delete", "datasets,alluxioruntimes,pods", "--all", "--timeout=180s")
		_, _ = n.cluster.Kubectl(n.ctx, "delete", "pvc/archive", "pv/archive", "--ignore-not-found", "--timeout=60s")
	})
	const runtime = `---
apiVersion: data.fluid.io/v1alpha1
kind: AlluxioRuntime
metadata: {name: %s}
spec:
  replicas: 1
  master: {replicas: 1}
  tieredstore: {levels: [{mediumtype: MEM, path: /dev/shm, quota: 256Mi}]}
  runAs: {uid: 1201, gid: 1201, user: painter, group: painters}
---
`
	n.apply(t, archive+`apiVersion: data.fluid.io/v1alpha1
kind: Dataset
metadata: {name: around}
spec:
  placement: Shared
  mounts:
    - {mountPoint: "pvc://archive/2024", path: /}
    - {mountPoint: "http://`+mirrorName+`/small/one/", path: /web}
`+fmt.Sprintf(runtime, "around")+`apiVersion: data.fluid.io/v1alpha1
kind: Dataset
metadata: {name: beside}
spec:
  placement: Shared
  mounts:
    - {mountPoint: "pvc://archive", name: whole}
    - {mountPoint: "pvc://archive/2024/mine/", path: /mine}
    - {mountPoint: "http://`+mirrorName+`/small/two/", name: web}
`+fmt.Sprintf(runtime, "beside"))
	n.bound(t, "around")
	n.bound(t, "beside")
	for _, pod := range []string{"around-master-0", "around-worker-0", "beside-master-0", "beside-worker-0"} {
		if node := n.kubectl(t, "get", "pod", pod, "-o", "jsonpath={.spec.nodeName}"); node != "node1" {
			t.Errorf("%s is on %s, which the claim's volume is not on", pod, node)
		}
	}
	for _, node := range []string{"node1", "node2"} {
		name := "viewer-" + node
		n.apply(
			t,
			user(
				name,
				node,
				"cat /around/mine/f /beside/whole/2024/mine/f /beside/mine/f && sha256sum /around/web/* /beside/web/*",
				"runAsUser: 1201, runAsGroup: 1201",
				"around",
				"beside",
			),
		)
		logs := n.ran(t, name)
		if !strings.HasPrefix(logs, "hello\nhello\nhello\n") {
			t.Errorf("a pod on %s reads %q", node, logs)
		}
		hasSmall(t, logs, "/around/web/")
		hasSmall(t, logs, "/beside/web/")
	}
}
