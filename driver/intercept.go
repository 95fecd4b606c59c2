package driver

import (
	"context"
	"log/slog"
	"path"
	"runtime/debug"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// callTime bounds every call, also those that come without a deadline.
const callTime = 2*time.Minute + 10*time.Second

// intercept bounds a call, turns a panic into an error, and logs one line at its end. Of the request it logs
// the volume's id and no more: the rest has secrets.
func (d *Driver) intercept(
	ctx context.Context, req any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler,
) (resp any, err error) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	start := time.Now()
	defer func() {
		if cause := recover(); cause != nil {
			d.log.Error("a call panicked", "method", info.FullMethod, "cause", cause, "stack", string(debug.Stack()))
			resp, err = nil, status.Error(codes.Internal, "the driver failed; its log says more")
		}
		d.logCall(req, info.FullMethod, time.Since(start), err)
	}()
	resp, err = handle(ctx, req)
	return resp, err
}

// logCall writes the line. Questions that orchestrators ask all the time are for debugging.
func (d *Driver) logCall(req any, method string, took time.Duration, err error) {
	name := path.Base(method)
	attrs := []slog.Attr{slog.String("method", name)}
	if r, ok := req.(interface{ GetVolumeId() string }); ok {
		attrs = append(attrs, slog.String("volume", r.GetVolumeId()))
	}
	attrs = append(attrs, slog.Duration("took", took), slog.String("code", status.Code(err).String()))
	level := slog.LevelInfo
	switch {
	case err != nil:
		level = slog.LevelWarn
		attrs = append(attrs, slog.String("error", status.Convert(err).Message()))
	case name == "Probe" || strings.Contains(name, "Get"):
		level = slog.LevelDebug
	}
	d.log.LogAttrs(context.Background(), level, "call", attrs...)
}
