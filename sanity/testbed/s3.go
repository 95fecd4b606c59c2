package testbed

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"millrace.io/millrace/sanity/machines"
)

// s3Server is the server of S3 that the tests run, which has nothing to do with ours.
const (
	s3Server  = "github.com/versity/versitygw/cmd/versitygw"
	s3Version = "v1.8.0"
	s3Service = "versitygw"
)

// The keys that the S3 server accepts, its region, and the port at which it listens.
const (
	S3Key    = "AKIDEXAMPLE"
	S3Secret = "not+a/real=secret" //nolint:gosec // Of a server of the tests.
	S3Region = "us-east-1"
	S3Port   = "7070"
)

// S3Program is the server, built once.
func S3Program(ctx context.Context) (string, error) {
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

// StartS3 starts an S3 server on a machine, with a bucket for each directory in root, and returns once it answers at
// host:port.
func StartS3(ctx context.Context, m *machines.Machine, host, port, root string) error {
	program, err := S3Program(ctx)
	if err != nil {
		return err
	}
	address, service := net.JoinHostPort(host, port), s3Service+"-"+port
	err = m.StartService(ctx, service, "env", "ROOT_ACCESS_KEY="+S3Key, "ROOT_SECRET_KEY="+S3Secret,
		program, "--port", address, "--region", S3Region, "posix", root)
	for range 200 {
		if err != nil {
			return err
		}
		conn, dialErr := m.Dial(ctx, "tcp", address)
		if dialErr == nil {
			return conn.Close()
		}
		time.Sleep(100 * time.Millisecond)
	}
	said, _ := os.ReadFile(m.Log(service))
	return fmt.Errorf("the S3 server does not answer: %s", said)
}
