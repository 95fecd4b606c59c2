package ufs

import (
	"context"
	"fmt"
	"log/slog"
	"sync"

	rclone "github.com/rclone/rclone/fs"
	"github.com/rclone/rclone/fs/config/configmap"
	"github.com/rclone/rclone/fs/config/configstruct"
)

// configureRclone gives rclone's settings their defaults, whatever its environment variables or
// another user of the library in this process have set, and then ours.
func configureRclone(config *rclone.ConfigInfo, o tlsOptions, opts Options) error {
	values := configmap.Simple{}
	for i := range rclone.ConfigOptionsInfo {
		option := &rclone.Option{Name: rclone.ConfigOptionsInfo[i].Name, Default: rclone.ConfigOptionsInfo[i].Default}
		values[option.Name] = option.String()
	}
	if err := configstruct.Set(values, config); err != nil {
		return fmt.Errorf("rclone's settings: %w", err)
	}
	config.ConnectTimeout = rclone.Duration(opts.ResponseTimeout)
	config.Timeout = rclone.Duration(opts.ResponseTimeout)
	// One attempt: the caller retries.
	config.LowLevelRetries = 1
	config.Transfers = opts.MaxConns
	config.UserAgent = "millrace"
	// LastModified is in every listing; rclone's own time of a file costs a request for each.
	config.UseServerModTime = true
	config.CaCert = o.CACert
	config.InsecureSkipVerify = o.NoCheck
	config.ClientCert, config.ClientKey = o.ClientCert, o.ClientKey
	return nil
}

// logToSlog sends what rclone logs to slog, as debugging: what matters comes back in errors.
var logToSlog = sync.OnceFunc(func() { rclone.SetLogger(debugHandler{}) })

// debugHandler passes records on to the default logger of the moment, at level debug.
type debugHandler struct{ slog.Handler }

func (debugHandler) Enabled(ctx context.Context, _ slog.Level) bool {
	return slog.Default().Enabled(ctx, slog.LevelDebug)
}

func (debugHandler) Handle(ctx context.Context, record slog.Record) error {
	record.Level = slog.LevelDebug
	record.Message = "rclone: " + record.Message
	return slog.Default().Handler().Handle(ctx, record)
}

func (h debugHandler) WithAttrs([]slog.Attr) slog.Handler { return h }
func (h debugHandler) WithGroup(string) slog.Handler      { return h }
