package driver

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
)

func TestInterceptPanicAndSecrets(t *testing.T) {
	var log bytes.Buffer
	d := &Driver{log: slog.New(slog.NewTextHandler(&log, nil))}
	req := &csi.NodeStageVolumeRequest{
		VolumeId: "the-volume", Secrets: map[string]string{"pass": "hunter2"},
		VolumeContext: map[string]string{"option.pass": "hunter2"},
	}
	info := &grpc.UnaryServerInfo{FullMethod: "/csi.v1.Node/NodeStageVolume"}
	_, err := d.intercept(t.Context(), req, info, func(ctx context.Context, _ any) (any, error) {
		if _, ok := ctx.Deadline(); !ok {
			t.Error("a call has no deadline")
		}
		var none []int
		return none[len(none)], nil
	})
	if status.Code(err) != codes.Internal {
		t.Error("a panic:", err)
	}
	_, err = d.intercept(t.Context(), req, info, func(context.Context, any) (any, error) {
		return nil, status.Error(codes.NotFound, "it is not here")
	})
	if status.Code(err) != codes.NotFound {
		t.Error(err)
	}
	text := log.String()
	if strings.Contains(text, "hunter2") {
		t.Error("a secret is in the log:", text)
	}
	for _, want := range []string{
		"NodeStageVolume", "the-volume", "code=NotFound", "it is not here",
		"index out of range",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the log lacks %q: %s", want, text)
		}
	}
}

// TestVolumeCondition reads the condition as an orchestrator before CSI 1.13 does.
func TestVolumeCondition(t *testing.T) {
	for _, c := range []condition{{message: "all is well"}, {reason: reasonAway, message: "the agent is away"}} {
		raw := volumeCondition(c)
		num, typ, n := protowire.ConsumeTag(raw)
		if num != 2 || typ != protowire.BytesType {
			t.Fatal(num, typ)
		}
		inner, _ := protowire.ConsumeBytes(raw[n:])
		abnormal, message := false, ""
		for len(inner) > 0 {
			num, typ, n := protowire.ConsumeTag(inner)
			inner = inner[n:]
			if num == 1 && typ == protowire.VarintType {
				v, n := protowire.ConsumeVarint(inner)
				abnormal, inner = v == 1, inner[n:]
				continue
			}
			text, n := protowire.ConsumeString(inner)
			message, inner = text, inner[n:]
		}
		if abnormal != (c.reason != "") || message != c.message {
			t.Errorf("%+v: %v %q", c, abnormal, message)
		}
	}
}

func TestConfig(t *testing.T) {
	good := Config{
		Endpoint: "/run/csi.sock", NodeID: "n", Version: "v", AgentSocket: "/run/a.sock",
		StateDir: "/var/lib/x",
	}
	if _, err := New(good); err != nil {
		t.Fatal(err)
	}
	for what, change := range map[string]func(*Config){
		"node id":      func(c *Config) { c.NodeID = strings.Repeat("n", 193) },
		"version":      func(c *Config) { c.Version = "" },
		"CSI socket":   func(c *Config) { c.Endpoint = "csi.sock" },
		"agent":        func(c *Config) { c.AgentSocket = "" },
		"state":        func(c *Config) { c.StateDir = "state" },
		"registration": func(c *Config) { c.RegistrationDir = "plugins" },
		"tier":         func(c *Config) { c.Policy.TierDirs = []string{"tier"} },
		"health":       func(c *Config) { c.Health = "0.0.0.0:9808" },
	} {
		c := good
		change(&c)
		if _, err := New(c); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for _, health := range []string{"127.0.0.1:0", "[::1]:9808", "unix:///run/h.sock"} {
		c := good
		c.Health = health
		if _, err := New(c); err != nil {
			t.Error(health, err)
		}
	}
}
