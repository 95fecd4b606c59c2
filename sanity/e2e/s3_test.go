package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"millrace.io/millrace/sanity/pattern"
)

// s3Server is the server of S3 that the tests run, which has nothing to do with ours.
const (
	s3Server  = "github.com/versity/versitygw/cmd/versitygw"
	s3Version = "v1.8.0"
	s3Service = "versitygw"
	s3Port    = "7070"
)

// s3Dataset has its keys from a Secret.
const s3Dataset = `apiVersion: v1
kind: Secret
metadata: {name: keys}
stringData: {id: AKIDEXAMPLE, key: not+a/real=secret}
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
        alluxio.underfs.s3.endpoint: http://` + mirrorName + `:` + s3Port + `
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

// s3Program is the server, built once.
func s3Program(ctx context.Context) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "millrace", s3Service+"-"+s3Version)
	program := filepath.Join(dir, s3Service)
	if _, err := os.Stat(program); err == nil {
		return program, nil
	}
	cmd := exec.CommandContext(ctx, "go", "install", "-trimpath", s3Server+"@"+s3Version)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOBIN="+dir)
	cmd.Dir = "/"
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%s: %w: %s", s3Server, err, out)
	}
	return program, nil
}

// startS3 starts the server of S3 with the small files, unless it runs.
func (r *rest) startS3(t *testing.T) {
	t.Helper()
	if conn, err := r.mirror.Dial(t.Context(), "tcp", mirrorAddress+":"+s3Port); err == nil {
		_ = conn.Close()
		return
	}
	program, err := s3Program(t.Context())
	if err != nil {
		t.Fatal(err)
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
	err = r.mirror.StartService(t.Context(), s3Service, "env", "ROOT_ACCESS_KEY=AKIDEXAMPLE", "ROOT_SECRET_KEY=not+a/real=secret",
		program, "--port", mirrorAddress+":"+s3Port, "--region", "us-east-1", "posix", filepath.Dir(bucket))
	if err != nil {
		t.Fatal(err)
	}
	await(t, 20*time.Second, "the S3 server answers", func() error {
		conn, err := r.mirror.Dial(t.Context(), "tcp", mirrorAddress+":"+s3Port)
		if err == nil {
			err = conn.Close()
		}
		return err
	})
}

func (r *rest) s3(t *testing.T) {
	r.startS3(t)
	r.apply(t, s3Dataset)
	r.bound(t, "objects")
	r.apply(t, user("objects", "node2", "sha256sum /objects/data/*", "runAsNonRoot: true, runAsUser: 1000", "objects"))
	hasSmall(t, r.ran(t, "objects"), "/objects/data/")
}
