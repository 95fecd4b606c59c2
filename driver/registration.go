package driver

import (
	"context"
	"path/filepath"

	"google.golang.org/grpc"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

// registrar answers kubelet on the registration socket: kubelet finds the socket, asks what is behind it, and tells
// what became of it.
type registrar struct {
	registration.UnimplementedRegistrationServer
	driver *Driver
}

// supportedVersions are the versions of CSI that kubelet may speak.
var supportedVersions = []string{"1.0.0"}

// RegistrationSocket is the socket in the directory in which kubelet looks for drivers.
func RegistrationSocket(dir string) string { return filepath.Join(dir, Name+"-reg.sock") }

// registrationServer is the server for the registration socket.
func (d *Driver) registrationServer() *grpc.Server {
	server := grpc.NewServer()
	registration.RegisterRegistrationServer(server, &registrar{driver: d})
	return server
}

// GetInfo tells kubelet where the CSI socket is, by the path that kubelet sees.
func (r *registrar) GetInfo(context.Context, *registration.InfoRequest) (*registration.PluginInfo, error) {
	return &registration.PluginInfo{
		Type: registration.CSIPlugin, Name: Name, Endpoint: r.driver.cfg.KubeletEndpoint,
		SupportedVersions: supportedVersions,
	}, nil
}

// NotifyRegistrationStatus takes what kubelet made of it. Kubelet tries again by itself.
func (r *registrar) NotifyRegistrationStatus(
	_ context.Context, s *registration.RegistrationStatus,
) (*registration.RegistrationStatusResponse, error) {
	if s.GetPluginRegistered() {
		r.driver.log.Info("registered with kubelet")
	} else {
		r.driver.log.Error("kubelet refused the registration", "error", s.GetError())
	}
	return &registration.RegistrationStatusResponse{}, nil
}
