package ufs

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"
	"golang.org/x/net/webdav"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/sanity/pace"
)

// remoteOptions are those of a source behind a password.
func remoteOptions() Options {
	return Options{
		Remotes: true, ResponseTimeout: 5 * time.Second,
		Secrets: map[string]string{"user": "me", "pass": "hunter2"},
	}
}

// serveSFTP serves a directory by SFTP behind a password, and is the connection string that reads it.
func serveSFTP(t *testing.T, dir string) string {
	t.Helper()
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	config := &ssh.ServerConfig{PasswordCallback: func(c ssh.ConnMetadata, password []byte) (*ssh.Permissions, error) {
		if c.User() != "me" || string(password) != "hunter2" {
			return nil, errors.New("refused")
		}
		return &ssh.Permissions{}, nil
	}}
	config.AddHostKey(signer)
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	t.Cleanup(func() {
		_ = l.Close()
		serving.Wait()
	})
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			stop := context.AfterFunc(t.Context(), func() { _ = conn.Close() })
			serving.Go(func() {
				defer stop()
				serveSFTPConn(conn, config, dir)
			})
		}
	})
	host, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return ":sftp,host=" + host + ",port=" + port + ",shell_type=none:"
}

// serveSFTPConn serves one connection to its end.
func serveSFTPConn(conn net.Conn, config *ssh.ServerConfig, dir string) {
	defer func() { _ = conn.Close() }()
	_, channels, requests, err := ssh.NewServerConn(conn, config)
	if err != nil {
		return
	}
	go ssh.DiscardRequests(requests)
	for c := range channels {
		channel, requests, err := c.Accept()
		if err != nil {
			return
		}
		go func() {
			for r := range requests {
				_ = r.Reply(r.Type == "subsystem", nil)
			}
		}()
		go func() {
			defer func() { _ = channel.Close() }()
			if server, err := sftp.NewServer(channel, sftp.ReadOnly(),
				sftp.WithServerWorkingDirectory(dir)); err == nil {
				_ = server.Serve()
			}
		}()
	}
}

// serveWebDAV serves a directory by WebDAV behind a password, and is the connection string that reads it.
func serveWebDAV(t *testing.T, dir string) string {
	t.Helper()
	dav := &webdav.Handler{FileSystem: webdav.Dir(dir), LockSystem: webdav.NewMemLS()}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, pass, _ := r.BasicAuth(); user != "me" || pass != "hunter2" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		dav.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	return ":webdav,url='" + server.URL + "':"
}

func TestSFTP(t *testing.T) {
	pace.Long(t)
	tr := sharedTree(t)
	runSuite(t, mustOpen(t, serveSFTP(t, base)+"tree", remoteOptions()), tr, abilities{complete: true})
}

func TestWebDAV(t *testing.T) {
	pace.Long(t)
	tr := sharedTree(t)
	runSuite(t, mustOpen(t, serveWebDAV(t, base)+"tree", remoteOptions()), tr, abilities{complete: true})
}

// TestRemoteVersions replaces a file between its description and the last byte of its body.
func TestRemoteVersions(t *testing.T) {
	for name, serve := range map[string]func(*testing.T, string) string{"sftp": serveSFTP, "webdav": serveWebDAV} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			file := filepath.Join(dir, "file")
			data := bytes.Repeat([]byte("old "), 1<<20)
			replace := func(with []byte, age time.Duration) {
				t.Helper()
				if err := os.WriteFile(file+".new", with, 0o644); err != nil {
					t.Fatal(err)
				}
				at := time.Now().Add(-age)
				if err := errors.Join(os.Chtimes(file+".new", at, at), os.Rename(file+".new", file)); err != nil {
					t.Fatal(err)
				}
			}
			replace(data, time.Hour)
			store := mustOpen(t, serve(t, dir), remoteOptions())
			info, err := store.Stat(t.Context(), "file")
			if err != nil {
				t.Fatal(err)
			}
			body, err := store.Open(t.Context(), info, 4, info.Size-4)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(body)
			_ = body.Close()
			if err != nil || !bytes.Equal(got, data[4:]) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
			body, err = store.Open(t.Context(), info, 0, info.Size)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = body.Close() }()
			if _, err := io.ReadFull(body, make([]byte, 1000)); err != nil {
				t.Fatal(err)
			}
			replace(bytes.Repeat([]byte("new "), 1<<20), time.Minute)
			rest, err := io.ReadAll(body)
			if !errors.Is(err, cacheclient.ErrStale) || len(rest) >= len(data)-1000 {
				t.Errorf("the rest of a file that changed: %d bytes, %v", len(rest), err)
			}
			if _, err := store.Open(t.Context(), info, 0, 10); !errors.Is(err, cacheclient.ErrStale) {
				t.Errorf("open of the old version: %v", err)
			}
			if err := os.Remove(file); err != nil {
				t.Fatal(err)
			}
			if _, err := store.Open(t.Context(), info, 0, 10); err == nil {
				t.Error("open of a removed file")
			}
		})
	}
}

// TestWebDAVWithoutRanges reads a range from a server that knows no ranges.
func TestWebDAVWithoutRanges(t *testing.T) {
	dir := t.TempDir()
	data := bytes.Repeat([]byte("0123456789"), 1000)
	write(t, filepath.Join(dir, "file"), string(data))
	dav := &webdav.Handler{FileSystem: webdav.Dir(dir), LockSystem: webdav.NewMemLS()}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Header.Del("Range")
		dav.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	store := mustOpen(t, ":webdav,url='"+server.URL+"':", Options{Remotes: true})
	info, err := store.Stat(t.Context(), "file")
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		body, err := store.Open(t.Context(), info, 5000, 10)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(body)
		_ = body.Close()
		if err != nil || body.Start != 0 || body.End != info.Size || !bytes.Equal(got, data) {
			t.Errorf("from %d to %d: %d bytes, %v", body.Start, body.End, len(got), err)
		}
	}
}

func TestRemoteErrors(t *testing.T) {
	silent, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = silent.Close() })
	_, port, _ := net.SplitHostPort(silent.Addr().String())
	locked := serveWebDAV(t, t.TempDir())
	for source, want := range map[string]string{
		":":                                       "has no such form",
		":sftp":                                   "has no such form",
		":nonsense:":                              `":nonsense" names a backend of rclone that is not in this program; accepted are sftp, webdav`,
		":http,url='http://h':":                   "give it as https://host/path/",
		":s3:bucket":                              "give it as s3://bucket/prefix",
		":local:/etc":                             "give it as /a/directory",
		":sftp,host=h,pass=hunter2:":              "pass is a secret",
		":webdav,url='http://me:hunter2@h/':":     "a user or password in it would show",
		":webdav,nonsense=1:":                     `option "nonsense" is not known to webdav sources`,
		":sftp,host=h,ssh=hunter2:":               "option ssh is not supported: it runs a program",
		":webdav,bearer_token_command=hunter2:":   "it runs a program",
		":sftp,host=127.0.0.1,port=1:":            "refuse",
		":sftp,host=127.0.0.1,port=" + port + ":": "nothing came for",
		locked: "401",
	} {
		begun := time.Now()
		store, err := Open(t.Context(), source, Options{
			Remotes: true, ResponseTimeout: time.Second,
			Secrets: map[string]string{"pass": "hunter3"},
		})
		if err == nil {
			_ = store.Close()
		}
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v, want %q", source, err, want)
		}
		if took := time.Since(begun); took > pace.Limit(5*time.Second) {
			t.Errorf("%s took %v", source, took)
		}
	}
	if _, err := Open(t.Context(), ":sftp,host=h:", Options{}); err == nil ||
		!strings.Contains(err.Error(), "millrace gateway only") {
		t.Errorf("where no remotes are read: %v", err)
	}
}
