package rpc

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/proto"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/alluxio/wire"
	"millrace.io/millrace/sanity/pace"
)

// listen is a listener that ends with the test.
func listen(tb testing.TB) net.Listener {
	tb.Helper()
	return listenAt(tb, "127.0.0.1:0")
}

func listenAt(tb testing.TB, address string) net.Listener {
	tb.Helper()
	var config net.ListenConfig
	l, err := config.Listen(tb.Context(), "tcp", address)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = l.Close() })
	return l
}

// tcpServer calls fn for each connection, and closes it then.
func tcpServer(tb testing.TB, fn func(net.Conn)) string {
	tb.Helper()
	l := listen(tb)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				fn(conn)
			}()
		}
	}()
	return l.Addr().String()
}

// grpcServer serves what is registered until the test ends.
func grpcServer(tb testing.TB, register func(*grpc.Server), options ...grpc.ServerOption) string {
	tb.Helper()
	l := listen(tb)
	s := grpc.NewServer(options...)
	register(s)
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = s.Serve(l)
	}()
	tb.Cleanup(func() {
		s.Stop()
		<-served
	})
	return l.Addr().String()
}

// versioned is a master of another version, as far as a client looks at it before it refuses: no such server can run
// here.
type versioned struct {
	wire.UnimplementedServiceVersionClientServiceServer
	wire.UnimplementedMetaMasterClientServiceServer
	version string
}

func (versioned) GetServiceVersion(context.Context, *wire.GetServiceVersionPRequest) (
	*wire.GetServiceVersionPResponse, error,
) {
	return &wire.GetServiceVersionPResponse{Version: proto.Int64(2)}, nil
}

func (v versioned) GetMasterInfo(context.Context, *wire.GetMasterInfoPOptions) (*wire.GetMasterInfoPResponse, error) {
	return &wire.GetMasterInfoPResponse{MasterInfo: &wire.MasterInfo{Version: &v.version}}, nil
}

func (v versioned) register(s *grpc.Server) {
	wire.RegisterServiceVersionClientServiceServer(s, v)
	wire.RegisterMetaMasterClientServiceServer(s, v)
}

// TestStrangers connects to what is no leading master of a version that is supported: a clear sentence within the
// deadline, and never that a file is not there.
func TestStrangers(t *testing.T) {
	c := shared.Get(t)
	leader, err := c.Leader(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var standbys []string
	for _, m := range c.Masters() {
		if m != leader {
			standbys = append(standbys, m.Address())
		}
	}
	web := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(web.Close)
	secure := httptest.NewUnstartedServer(http.NotFoundHandler())
	secure.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)
	secure.StartTLS()
	t.Cleanup(secure.Close)
	unused := listen(t)
	_ = unused.Close()
	silent := tcpServer(t, func(net.Conn) { <-t.Context().Done() })
	for name, test := range map[string]struct {
		masters  []string
		security Security
		is       error
		says     string
	}{
		"one standby": {
			masters: standbys[:1], is: cacheclient.ErrUnavailable,
			says: `^[^ ,]+ is a standby master$`,
		},
		"two standbys": {
			masters: standbys, is: cacheclient.ErrUnavailable,
			says: `^\S+,\S+ have no master that leads: \S+ is a standby master$`,
		},
		"a worker's port": {
			masters: []string{c.Workers()[0].Address()}, is: cacheclient.ErrUnavailable,
			says: `is an Alluxio server and no master: it may be the port of a worker`,
		},
		"a port of pages": {
			masters: []string{strings.TrimPrefix(leader.Web(), "http://")},
			is:      cacheclient.ErrUnavailable, says: `is a web server and no Alluxio server$`,
		},
		"a web server": {
			masters: []string{web.Listener.Addr().String()}, is: cacheclient.ErrUnavailable,
			says: `is a web server and no Alluxio server$`,
		},
		"a web server, TLS": {
			masters: []string{secure.Listener.Addr().String()}, is: cacheclient.ErrUnavailable,
			says: `closed the connection without a word$`,
		},
		"TLS to no TLS": {
			masters: []string{leader.Address()}, security: Security{TLS: true},
			is: cacheclient.ErrUnavailable, says: `does not speak TLS$`,
		},
		"gRPC of another kind": {
			masters: []string{grpcServer(t,
				func(s *grpc.Server) { healthpb.RegisterHealthServer(s, health.NewServer()) })},
			is: cacheclient.ErrUnavailable, says: `is no Alluxio master: it does not know getServiceVersion$`,
		},
		"accepts, is silent": {
			masters: []string{silent}, is: cacheclient.ErrUnavailable,
			says: `did not answer within 1s$|accepts connections and does not answer$`,
		},
		"accepts and closes": {
			masters: []string{tcpServer(t, func(net.Conn) {})}, is: cacheclient.ErrUnavailable,
			says: `closed the connection without a word$`,
		},
		"refuses": {
			masters: []string{unused.Addr().String()}, is: cacheclient.ErrUnavailable,
			says: `^\S+ refuses the connection$`,
		},
		"no such name": {
			masters: []string{"no-such-host.invalid:19998"}, is: cacheclient.ErrUnavailable,
			says: `cannot be connected to: .*no-such-host\.invalid`,
		},
		"refuses and silent": {
			masters: []string{unused.Addr().String(), silent}, is: cacheclient.ErrUnavailable,
			says: `have no master that leads: `,
		},
		"version 3.1": {
			masters: []string{grpcServer(t, versioned{version: "3.1"}.register)},
			says:    `runs Alluxio 3\.1; accepted are the versions 2\.9\.x$`,
		},
		"version 2.8.1": {
			masters: []string{grpcServer(t, versioned{version: "2.8.1"}.register)},
			says:    `runs Alluxio 2\.8\.1; accepted are the versions 2\.9\.x$`,
		},
		"a refused user": {
			masters: addresses(c), security: Security{User: "a", Impersonate: "b"},
			is:   fs.ErrPermission,
			says: `refuses the user: permission denied: .*"a" is not configured to allow any impersonation`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			strange(t, Config{Masters: test.masters, Security: test.security}, test.is, test.says)
		})
	}
}

func strange(t *testing.T, cfg Config, is error, says string) {
	t.Helper()
	m, err := Connect(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Release()
	ctx := within(t, 5*time.Second)
	begin := time.Now()
	check := m.Check(ctx)
	if took := time.Since(begin); took > pace.Limit(6*time.Second) {
		t.Errorf("Check took %v", took)
	}
	errs := map[string]error{"Check": check}
	if is != nil {
		ctx := within(t, 5*time.Second)
		_, errs["Status"] = m.Status(ctx, "/", NeverSync)
		if took := time.Since(begin); took > pace.Limit(12*time.Second) {
			t.Errorf("Check and Status took %v", took)
		}
	}
	for call, err := range errs {
		switch {
		case err == nil:
			t.Errorf("%s: no error", call)
		case is != nil && !errors.Is(err, is), errors.Is(err, fs.ErrNotExist),
			!regexp.MustCompile(says).MatchString(err.Error()), strings.Contains(err.Error(), "\n"):
			t.Errorf("%s: %v (%T), wanted %v and %q", call, err, err, is, says)
		default:
			t.Logf("%s after %v: %v", call, time.Since(begin).Round(time.Millisecond), err)
		}
	}
}

func TestSupportedVersions(t *testing.T) {
	for version, ok := range map[string]bool{
		"2.9.6": true, "2.9.0": true, "2.9.5": true, "2.9.6-SNAPSHOT": true, "2.9": true,
		"2.8.1": false, "2.10.0": false, "2.90.1": false, "3.1.0": false, "313": false, "304": false, "1.8.2": false,
		"": false,
	} {
		if err := supported("m:19998", version); (err == nil) != ok ||
			err != nil && !strings.Contains(err.Error(), "2.9.x") {
			t.Errorf("version %q: %v", version, err)
		}
	}
}
