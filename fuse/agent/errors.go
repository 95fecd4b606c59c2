package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/fuse/mountpoint"
)

// statusError is an error that knows its HTTP status.
type statusError struct {
	status int
	err    error
}

func (e *statusError) Error() string { return e.err.Error() }
func (e *statusError) Unwrap() error { return e.err }

func errStatus(status int, format string, args ...any) error {
	return &statusError{status, fmt.Errorf(format, args...)}
}

// statuses gives each error of the layers below its HTTP status; the first match wins.
var statuses = []struct {
	err    error
	status int
}{
	{fs.ErrNotExist, http.StatusNotFound},
	{fs.ErrPermission, http.StatusForbidden},
	{cacheclient.ErrNotDir, http.StatusBadRequest},
	{cacheclient.ErrIsDir, http.StatusBadRequest},
	{cacheclient.ErrStale, http.StatusConflict},
	{mountpoint.ErrBusy, http.StatusConflict},
	{cacheclient.ErrClosed, http.StatusServiceUnavailable},
	{cacheclient.ErrUnavailable, http.StatusGatewayTimeout},
	{context.DeadlineExceeded, http.StatusGatewayTimeout},
	{context.Canceled, http.StatusServiceUnavailable},
}

// statusOf is the HTTP status that fits the error.
func statusOf(err error) int {
	var known *statusError
	if errors.As(err, &known) {
		return known.status
	}
	for _, s := range statuses {
		if errors.Is(err, s.err) {
			return s.status
		}
	}
	return http.StatusInternalServerError
}
