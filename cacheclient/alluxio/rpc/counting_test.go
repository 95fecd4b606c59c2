package rpc

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"sync/atomic"
	"testing"
)

// countConnections closes connections once they say something, and counts them.
func countConnections(n *atomic.Int64) func(net.Conn) {
	return func(conn net.Conn) {
		n.Add(1)
		_, _ = conn.Read(make([]byte, 64))
	}
}

// requestCounter passes connections on to a server and counts them and the requests in them.
type requestCounter struct {
	addr                  string
	connections, requests atomic.Int64
}

func countRequests(tb testing.TB, target string) *requestCounter {
	tb.Helper()
	rc := &requestCounter{}
	rc.addr = tcpServer(tb, func(client net.Conn) {
		rc.connections.Add(1)
		var dialer net.Dialer
		server, err := dialer.DialContext(context.WithoutCancel(tb.Context()), "tcp", target)
		if err != nil {
			return
		}
		back := make(chan struct{})
		go func() {
			defer close(back)
			_, _ = io.Copy(client, server)
			_ = client.Close()
		}()
		rc.pass(server, client)
		_ = server.Close()
		<-back
	})
	return rc
}

// pass copies what a client says, and counts the HTTP/2 frames that begin a request.
func (rc *requestCounter) pass(to io.Writer, from io.Reader) {
	const preface, header, headers = 24, 9, 0x1
	if _, err := io.CopyN(to, from, preface); err != nil {
		return
	}
	var head [header]byte
	for {
		if _, err := io.ReadFull(from, head[:]); err != nil {
			return
		}
		if head[3] == headers {
			rc.requests.Add(1)
		}
		if _, err := to.Write(head[:]); err != nil {
			return
		}
		if _, err := io.CopyN(to, from, int64(binary.BigEndian.Uint32(head[:])>>8)); err != nil {
			return
		}
	}
}
