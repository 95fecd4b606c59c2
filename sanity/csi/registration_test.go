package csi_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"

	"millrace.io/millrace/driver"
)

// TestRegistration does what kubelet's plugin watcher does with a socket that it finds.
func TestRegistration(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.startPlugin()
	conn, err := grpc.NewClient("unix://"+n.at("registration/"+driver.Name+"-reg.sock"),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	n.must("connecting", err)
	defer func() { _ = conn.Close() }()
	client := registration.NewRegistrationClient(conn)
	n.eventually("the registration socket answers", func(ctx context.Context) error {
		info, err := client.GetInfo(ctx, &registration.InfoRequest{}, grpc.WaitForReady(true))
		if err != nil {
			return err
		}
		if info.GetType() != registration.CSIPlugin || info.GetName() != driver.Name ||
			info.GetEndpoint() != n.csiSocket() ||
			len(info.GetSupportedVersions()) != 1 || info.GetSupportedVersions()[0] != "1.0.0" {
			t.Errorf("%+v", info)
		}
		return nil
	})
	_, err = client.NotifyRegistrationStatus(t.Context(),
		&registration.RegistrationStatus{Error: "kubelet has its reasons"})
	n.must("notifying", err)
	n.eventually("a refused registration is in the log", n.logged("kubelet has its reasons"))
}

// TestHealth: alive without an agent, ready with one.
func TestHealth(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.startPlugin()
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", n.at("health.sock"))
		},
	}}
	get := func(ctx context.Context, path string) (int, string, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://node"+path, http.NoBody)
		if err != nil {
			return 0, "", err
		}
		resp, err := client.Do(req)
		if err != nil {
			return 0, "", err
		}
		defer func() { _ = resp.Body.Close() }()
		body, err := io.ReadAll(resp.Body)
		return resp.StatusCode, string(body), err
	}
	expect := func(path string, want int) {
		t.Helper()
		n.eventually(path, func(ctx context.Context) error {
			code, body, err := get(ctx, path)
			if err == nil && code != want {
				err = &net.AddrError{Err: body, Addr: path}
			}
			return err
		})
	}
	expect("/healthz", http.StatusOK)
	if code, body, err := get(t.Context(), "/readyz"); err != nil || code != http.StatusServiceUnavailable ||
		!strings.Contains(body, "agent") {
		t.Error("ready without an agent:", code, body, err)
	}
	n.startAgent()
	expect("/readyz", http.StatusOK)
	n.serving.Kill()
	expect("/readyz", http.StatusServiceUnavailable)
	expect("/healthz", http.StatusOK)
}
