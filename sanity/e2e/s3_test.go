package e2e

import (
	"os"
	"path/filepath"
	"testing"

	"millrace.io/millrace/sanity/pattern"
	"millrace.io/millrace/sanity/testbed"
)

// s3Dataset has its keys from a Secret.
const s3Dataset = `apiVersion: v1
kind: Secret
metadata: {name: keys}
stringData: {id: "` + testbed.S3Key + `", key: "` + testbed.S3Secret + `"}
---
apiVersion: data.fluid.io/v1alpha1
kind: Dataset
metadata: {name: objects}
spec:
  placement: Shared
  mounts:
    - mountPoint: s3://data/
      name: data
      options:
        alluxio.underfs.s3.endpoint: http://` + mirrorName + `:7070
        alluxio.underfs.s3.endpoint.region: us-east-1
        alluxio.underfs.s3.disable.dns.buckets: "true"
        alluxio.underfs.s3.inherit.acl: "false"
      encryptOptions:
        - {name: s3a.accessKeyId, valueFrom: {secretKeyRef: {name: keys, key: id}}}
        - {name: s3a.secretKey, valueFrom: {secretKeyRef: {name: keys, key: key}}}
---
apiVersion: data.fluid.io/v1alpha1
kind: AlluxioRuntime
metadata: {name: objects}
spec:
  replicas: 1
  tieredstore: {levels: [{mediumtype: MEM, path: /dev/shm, quota: 256Mi}]}
  master: {replicas: 1}
`

// startS3 starts the server of S3 with the small files, unless it runs.
func (r *rest) startS3(t *testing.T) {
	t.Helper()
	if conn, err := r.mirror.Dial(t.Context(), "tcp", mirrorAddress+":"+testbed.S3Port); err == nil {
		_ = conn.Close()
		return
	}
	bucket := filepath.Join(r.cluster.Dir(), "s3", "data")
	if err := os.MkdirAll(bucket, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, size := range smallFiles {
		if err := pattern.Write(filepath.Join(bucket, name), name, size); err != nil {
			t.Fatal(err)
		}
	}
	err := testbed.StartS3(t.Context(), r.mirror, mirrorAddress, testbed.S3Port, filepath.Dir(bucket))
	if err != nil {
		t.Fatal(err)
	}
}

func (r *rest) s3(t *testing.T) {
	r.startS3(t)
	r.apply(t, s3Dataset)
	r.bound(t, "objects")
	r.apply(t, user("objects", "node2", "sha256sum /objects/data/*", "runAsNonRoot: true, runAsUser: 1000", "objects"))
	hasSmall(t, r.ran(t, "objects"), "/objects/data/")
}
