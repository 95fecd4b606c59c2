// Command millrace-gateway shows a source to Alluxio as an S3 bucket: `millrace gateway` becomes it.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	rclone "github.com/rclone/rclone/fs"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/gateway"
	"millrace.io/millrace/cacheclient/network"
	"millrace.io/millrace/cacheclient/ufs"
	"millrace.io/millrace/cmd/command"
	"millrace.io/millrace/cmd/commandline"
	"millrace.io/millrace/fuse/agent"
)

const gatewayAbout = `Shows SOURCE as a read-only S3 bucket on the loopback, so that a stock Alluxio mounts what it cannot read itself, such as
a web server. It runs beside each master and each worker, all with the same --bucket, --listen and --keys-file, and keeps
no data. Alluxio mounts a bucket's name once, so that two sources need two names.

SOURCE is https://host/path/, s3://bucket/prefix, /a/directory, or what else rclone reads by its connection string, such as
:webdav,url=https://host/path: and :sftp,host=name,user=me:/path. Secrets for it belong into --options-file or the
environment, never into an argument.

The keys that requests must be signed with are made at the first start and kept in --keys-file (0600); what is printed
when the gateway serves names that file and not the secret. Alluxio is told:

  alluxio fs mount --readonly --option s3a.accessKeyId=... --option s3a.secretKey=... \
    --option alluxio.underfs.s3.endpoint=http://127.0.0.1:9063 --option alluxio.underfs.s3.disable.dns.buckets=true \
    --option alluxio.underfs.s3.inherit.acl=false --option millrace.source=SOURCE /path s3://BUCKET/

millrace.source means nothing to Alluxio; by it millrace mount knows what to read where Alluxio does not answer.

Health and metrics have a listener of their own, --metrics-listen, since a bucket has no place for them: /healthz says
that the process serves, /readyz that the source answers, /source has as JSON whether it is reached, trusted and accepts
the keys, /metrics counts requests and bytes. It needs no keys and may be on any address,
	for a kubelet's probes come from
outside. What --options-file has is read again when it changes. Memory stays below 100 MB whatever clients do.`

// gatewayMemory is what the gateway's heap keeps to if it can, in bytes; the rest of 100 MB is the program itself.
const gatewayMemory = 64 << 20

// The addresses where none are given.
var defaultListen = netip.MustParseAddrPort("127.0.0.1:9063")

const defaultProbes = "127.0.0.1:9064"

// gatewayConfig is what the flags of gateway say.
type gatewayConfig struct {
	source string
	// each is the file of the gateways to run, "" where there is one, and networkDir has the operator's settings.
	each, networkDir string
	network          network.Settings
	listen           netip.AddrPort
	// probes is the address of health and metrics, "" for none.
	probes              string
	allowRemote         bool
	sharePort           bool
	startAnyway         bool
	bucket, keysFile    string
	options             map[string]string
	optionsFile         string
	connections         int
	maxRequests         int
	timeout, revalidate time.Duration
	blockSize           int64
	output              string
	logLevel, logFormat string
}

func main() {
	// Its messages are for rclone's own users; what they are about reaches us as errors.
	rclone.SetLogger(slog.DiscardHandler)
	os.Exit(commandline.Tell(command.Execute(gatewayCommand().Command, os.Args[1:], os.Stdout), os.Stderr))
}

func gatewayCommand() *command.Command {
	f, c := newGateway()
	f.Runs(func(rest []string, out io.Writer) error {
		if err := c.take(f, rest); err != nil {
			return err
		}
		log := commandline.NewLog(os.Stderr, c.logLevel, c.logFormat)
		slog.SetDefault(log)
		if os.Getenv("GOMEMLIMIT") == "" {
			debug.SetMemoryLimit(gatewayMemory)
		}
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
		defer stop()
		if c.each != "" {
			return serveEach(ctx, c.all(log))
		}
		return c.serve(ctx, log, out)
	})
	return f.Program()
}

// newGateway makes the flags of gateway, and what they fill in.
func newGateway() (*command.Command, *gatewayConfig) {
	c := &gatewayConfig{
		listen: defaultListen, probes: defaultProbes, bucket: gateway.DefaultBucket, options: map[string]string{},
		connections: 16, maxRequests: 64, timeout: 10 * time.Second, revalidate: 5 * time.Second, blockSize: 64 << 20,
		logLevel: "info", logFormat: "text",
	}
	f := command.New("gateway", "[flags] SOURCE", "show a source to Alluxio as an S3 bucket", gatewayAbout)
	command.Parsed(f, &c.listen, "listen", "`HOST:PORT` of the S3 server; port 0 takes a free one", c.listen.String(),
		commandline.ParseListen)
	f.Toggle(&c.allowRemote, "allow-remote",
		"let --listen be an address that others reach: who has the keys then reads the source over plain HTTP")
	f.Toggle(&c.sharePort, "share-port",
		"let other gateways of this user, started so, serve the same --listen address: for one source in several pods "+
			"of a node's network")
	command.Parsed(f, &c.probes, "metrics-listen",
		"`[HOST]:PORT` of health and metrics, on all addresses without a host; none is no listener", c.probes,
		commandline.ParseProbes)
	command.Parsed(f, &c.bucket, "bucket", "`NAME` of the bucket", c.bucket,
		func(s string) (string, error) { return s, gateway.CheckBucket(s) })
	f.Text(&c.keysFile, "keys-file",
		"`FILE` with the keys, made where it does not exist (default one in the runtime directory, with new keys at "+
			"each start)")
	f.Toggle(&c.startAnyway, "start-anyway",
		"start also where the source refuses, is not there or is not trusted: requests ask it again")
	f.SourceOptions(c.options, &c.optionsFile)
	f.Text(&c.networkDir, "network-dir",
		"`DIR` with what holds for all sources that say nothing: ca.crt (believed beside the system's "+
			"authorities), HTTPS_PROXY, HTTP_PROXY, NO_PROXY")
	f.Text(&c.each, "each",
		"`FILE` of a JSON list of lists of arguments: run a gateway for each, and follow the file; no SOURCE then")
	command.Parsed(f, &c.connections, "connections", "`N` requests to the source at a time at most, from 2 on", "16",
		commandline.CountTo(1024))
	command.Parsed(f, &c.maxRequests, "max-requests",
		"`N` requests that are served at a time; others wait, and are told to slow down after 30 s", "64",
		commandline.CountTo(4096))
	command.Parsed(f, &c.timeout, "timeout", "`TIME` after which a silent source is an error", "10s",
		commandline.ParseDuration)
	command.Parsed(f, &c.revalidate, "revalidate",
		"longest `TIME` to believe what a file is like, or a listing, without asking the source; a read always asks",
		"5s", commandline.ParseAge)
	command.Parsed(f, &c.blockSize, "block-size",
		"`SIZE` of Alluxio's blocks, at whose multiples a read without an end pauses for Alluxio to end it", "64Mi",
		commandline.SizeOver)
	f.Format(&c.output)
	f.Logging(&c.logLevel, &c.logFormat)
	return f, c
}

// take takes the arguments beside the flags, and checks what the flags say together.
func (c *gatewayConfig) take(f *command.Command, rest []string) error {
	if c.each != "" && len(rest) == 0 {
		return nil
	}
	if len(rest) == 1 && rest[0] == "" {
		return f.Wrong("the SOURCE is empty; accepted are a URL and an absolute path")
	}
	if len(rest) != 1 || c.each != "" {
		return f.Wrong("gateway takes a SOURCE, not %s", command.Arguments(len(rest)))
	}
	c.source = rest[0]
	if c.connections < 2 {
		return f.Wrong(`--connections "1" is too few: a read and the look-up of a name need one each`)
	}
	if !c.listen.Addr().IsLoopback() && !c.allowRemote {
		return f.Wrong("--listen %q is not on the loopback, and others would read the source over plain HTTP; give "+
			"--allow-remote if that is meant", c.listen)
	}
	return nil
}

// serve shows the source until the context ends.
func (c *gatewayConfig) serve(ctx context.Context, log *slog.Logger, out io.Writer) error {
	store, err := c.openSource(ctx, log)
	if err != nil {
		return err
	}
	defer func() { _ = store.Close() }()
	keysFile, keys, forget, err := c.loadKeys()
	if err != nil {
		return err
	}
	defer forget()
	g, err := c.gateway(store, keys, log)
	if err != nil {
		return err
	}
	listen := commandline.Listen
	if c.sharePort {
		listen = commandline.ListenShared
	}
	s3, err := listen(ctx, "--listen", c.listen.String())
	if err != nil {
		return err
	}
	shown := gatewayShown{
		Source: store.String(), Bucket: c.bucket, Endpoint: "http://" + s3.Addr().String(),
		AccessKeyID: keys.AccessKeyID, KeysFile: keysFile,
	}
	var admin net.Listener
	if c.probes != "" {
		if admin, err = commandline.Listen(ctx, "--metrics-listen", c.probes); err != nil {
			_ = s3.Close()
			return err
		}
		shown.Metrics = "http://" + admin.Addr().String() + "/metrics"
	}
	if err := commandline.PrintAs(c.output, out, shown, func() error { return shown.print(out) }); err != nil {
		log.Warn("the line that says where to find the gateway cannot be printed", "error", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	var beside sync.WaitGroup
	defer beside.Wait()
	defer cancel()
	if renewed, ok := store.(*gateway.Renewed); ok {
		beside.Go(func() { renewed.Watch(ctx, gateway.RenewEvery) })
	}
	if c.startAnyway {
		// It is said in the log where the source cannot be read.
		beside.Go(func() { g.Check(ctx) })
	}
	return g.Serve(ctx, s3, admin)
}

// gateway makes what serves a source.
func (c *gatewayConfig) gateway(store ufs.Store, keys gateway.Keys, log *slog.Logger) (*gateway.Gateway, error) {
	config := gateway.Config{
		Store: store, Bucket: c.bucket, Keys: keys, Connections: c.connections, MaxRequests: c.maxRequests,
		Timeout: c.timeout, Revalidate: c.revalidate, BlockSize: c.blockSize, Log: log,
	}
	if c.revalidate == 0 {
		config.Revalidate = -1
	}
	if renewed, ok := store.(*gateway.Renewed); ok {
		config.Options = func() string { return renewed.Options(keys) }
	}
	return gateway.New(config)
}

// gatewayShown is what Alluxio needs to know to mount the bucket, but for the secret.
type gatewayShown struct {
	Source      string `json:"source"`
	Bucket      string `json:"bucket"`
	Endpoint    string `json:"endpoint"`
	AccessKeyID string `json:"accessKeyId"`
	KeysFile    string `json:"keysFile"`
	Metrics     string `json:"metrics,omitempty"`
}

func (s gatewayShown) print(out io.Writer) error {
	line := fmt.Sprintf("serving %s as %s, endpoint %s, access key %s, keys in %s", s.Source,
		gateway.AlluxioURI(s.Bucket), s.Endpoint, s.AccessKeyID, s.KeysFile)
	if s.Metrics != "" {
		line += ", metrics on " + s.Metrics
	}
	_, err := fmt.Fprintln(out, commandline.OneLine(line))
	return err
}

// openSource opens the source. One that does not answer is waited for while the gateway serves, so that a pod whose
// source is down for a while goes on with what Alluxio has cached. With --start-anyway that holds for all that is
// wrong with the source or its options, and nothing is asked of it before the gateway serves. Options of a file are
// read again when it changes.
func (c *gatewayConfig) openSource(ctx context.Context, log *slog.Logger) (ufs.Store, error) {
	settings := c.network
	if c.networkDir != "" {
		var err error
		if settings, err = network.Read(c.networkDir); err != nil {
			return nil, err
		}
	}
	opts := ufs.Options{
		Network: settings,
		Values:  c.options, File: c.optionsFile, ResponseTimeout: c.timeout, MaxConns: c.connections, FollowLinks: true,
		Remotes: true,
		Log:     log,
	}
	name, err := ufs.Name(c.source)
	if err != nil {
		return nil, err
	}
	if !c.startAnyway {
		store, err := ufs.Open(ctx, c.source, opts)
		switch {
		case err == nil && c.optionsFile == "":
			return store, nil
		case err == nil:
			_ = store.Close()
		case !errors.Is(err, cacheclient.ErrUnavailable):
			return nil, err
		default:
			log.Warn("the source cannot be read now; requests will ask it again", "error", err)
		}
	}
	opts.Deferred = true
	open := func(ctx context.Context) (ufs.Store, error) { return ufs.Open(ctx, c.source, opts) }
	if c.optionsFile == "" {
		return open(ctx)
	}
	return gateway.NewRenewed(ctx, name, c.optionsFile, open, log), nil
}

// loadKeys reads the keys, or makes a file for this run only, which forget removes.
func (c *gatewayConfig) loadKeys() (file string, keys gateway.Keys, forget func(), err error) {
	file, forget = c.keysFile, func() {}
	if file == "" {
		dir, err := agent.RuntimeDir()
		if err != nil {
			return "", gateway.Keys{}, nil, err
		}
		file = filepath.Join(dir, fmt.Sprintf("gateway-%d.keys", os.Getpid()))
		// A dead process with the same number may have left one.
		_ = os.Remove(file)
		forget = func() { _ = os.Remove(file) }
	}
	keys, err = gateway.LoadKeys(file)
	return file, keys, forget, err
}
