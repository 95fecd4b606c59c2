package cachetest

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	// The S3 server serves a directory through the local backend.
	_ "github.com/rclone/rclone/backend/local"
	_ "github.com/rclone/rclone/cmd/serve/s3"
	rclone "github.com/rclone/rclone/fs"
	"github.com/rclone/rclone/fs/rc"
)

// The one pair of keys that ServeS3 knows.
const (
	S3Key    = "key"
	S3Secret = "secret"
)

// ServeS3 is rclone's S3 server over a directory, each directory in which is a bucket. etags names the
// hash that its ETags are, "" for none; cacheTime is how long it remembers directories.
func ServeS3(t *testing.T, dir, etags, cacheTime string) (endpoint string) {
	t.Helper()
	quiet()
	address := FreeAddress(t)
	start, stop := rc.Calls.Get("serve/start"), rc.Calls.Get("serve/stop")
	out, err := start.Fn(context.Background(), rc.Params{
		"type": "s3", "fs": dir, "addr": address, "auth_key": []string{S3Key + "," + S3Secret}, "etag_hash": etags,
		"vfsOpt": rc.Params{"DirCacheTime": cacheTime, "PollInterval": "0s"},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := stop.Fn(context.Background(), rc.Params{"id": out["id"]}); err != nil {
			t.Error(err)
		}
	})
	WaitListening(t, address, nil)
	return "http://" + address
}

// quiet has rclone log nothing but errors.
var quiet = sync.OnceFunc(func() { rclone.GetConfig(context.Background()).LogLevel = rclone.LogLevelError })

// FreeAddress is one on the loopback that no server listens on.
func FreeAddress(t *testing.T) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// WaitListening waits up to ten seconds for a server on the address; ended, which may be nil, is closed when the
// server has ended.
func WaitListening(t *testing.T, address string, ended <-chan struct{}) {
	t.Helper()
	dialer := net.Dialer{Timeout: time.Second}
	for range 500 {
		conn, err := dialer.DialContext(t.Context(), "tcp", address)
		if err == nil {
			_ = conn.Close()
			return
		}
		var network net.Error
		if !errors.As(err, &network) {
			t.Fatal(err)
		}
		select {
		case <-ended:
			t.Fatal("the server ended")
		case <-time.After(20 * time.Millisecond):
		}
	}
	t.Fatal("the server does not listen")
}
