package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"millrace.io/millrace/cacheclient/alluxio/rpc"
	"millrace.io/millrace/cacheclient/gateway"
	"millrace.io/millrace/sanity/session"
)

// showServer starts a gateway to the large files of a web server, and mounts it in Alluxio: workers read by the
// gateway, and millrace, which is told the true source, by itself.
func (b *bench) showServer(dir string, server *webServer) error {
	source := server.url("big/")
	keysFile := filepath.Join(b.work, dir+".keys")
	endpoint, err := b.startGateway(source, dir, keysFile)
	if err != nil {
		return err
	}
	keys, err := gateway.LoadKeys(keysFile)
	if err != nil {
		return err
	}
	properties := gateway.AlluxioOptions(endpoint, source, keys)
	maps.Copy(properties, b.blockSizeProperty(dir))
	return b.show(rpc.Mount{Path: "/" + dir, Source: gateway.AlluxioURI(dir), ReadOnly: true, Properties: properties})
}

// startGateway starts `millrace gateway` for a source, and returns its endpoint.
func (b *bench) startGateway(source, bucket, keysFile string) (string, error) {
	cmd := session.Command(context.WithoutCancel(b.session.Context()), b.program.Bin, "gateway", "--listen",
		"127.0.0.1:0", "--metrics-listen", "none",
		"--bucket", bucket, "--keys-file", keysFile, "--block-size", strconv.FormatInt(b.blockSize(bucket), 10), "-o",
		"json", "--log-level", "warn", source)
	cmd.Env = append(os.Environ(), "MILLRACE_RUNTIME_DIR="+b.program.Runtime)
	cmd.Stderr = os.Stderr
	read, write, err := os.Pipe()
	if err != nil {
		return "", err
	}
	defer func() { _ = read.Close() }()
	cmd.Stdout = write
	_, err = b.session.StartCmd(cmd)
	_ = write.Close()
	if err != nil {
		return "", err
	}
	var shown struct {
		Endpoint string `json:"endpoint"`
	}
	_ = read.SetReadDeadline(time.Now().Add(10 * time.Second))
	if err := json.NewDecoder(read).Decode(&shown); err != nil {
		return "", fmt.Errorf("millrace gateway %s did not start: %w", source, err)
	}
	return shown.Endpoint, nil
}
