package ufs

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"syscall"
	"time"

	"millrace.io/millrace/cacheclient"
)

// maxRetryAfter caps what a server may ask a reader to wait.
const maxRetryAfter = 30 * time.Second

// StatusError is an HTTP status that is no answer to the request. It unwraps to
// fs.ErrNotExist (404, 410), fs.ErrPermission (401, 403, 407, 451) or
// cacheclient.ErrUnavailable (408, 425, 429 and 5xx).
type StatusError struct {
	// Code is the HTTP status.
	Code int
	// RetryAfter is how long the server asks to wait, 0 where it does not; at most 30 seconds.
	RetryAfter time.Duration
	// URL is what was asked for, without user and query.
	URL string
}

// Error tells the status and the URL.
func (e *StatusError) Error() string {
	text := http.StatusText(e.Code)
	if text != "" {
		text = " " + text
	}
	return e.URL + " answers " + strconv.Itoa(e.Code) + text
}

// Unwrap is what the status means to a file system, if anything.
func (e *StatusError) Unwrap() error {
	switch e.Code {
	case http.StatusNotFound, http.StatusGone:
		return fs.ErrNotExist
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusProxyAuthRequired, http.StatusUnavailableForLegalReasons:
		return fs.ErrPermission
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests:
		return cacheclient.ErrUnavailable
	}
	if e.Code >= 500 {
		return cacheclient.ErrUnavailable
	}
	return nil
}

// newStatusError takes the status of a response; show is its URL without secrets.
func newStatusError(resp *http.Response, show string) *StatusError {
	return &StatusError{Code: resp.StatusCode, RetryAfter: retryAfter(resp.Header, time.Now()), URL: show}
}

// retryAfter reads the header Retry-After, which is seconds or a date (RFC 9110, section
// 10.2.3). A date counts from the server's own clock where it tells it.
func retryAfter(h http.Header, now time.Time) time.Duration {
	value := h.Get("Retry-After")
	if value == "" {
		return 0
	}
	if seconds, err := strconv.ParseUint(value, 10, 31); err == nil {
		return min(time.Duration(seconds)*time.Second, maxRetryAfter)
	} else if errors.Is(err, strconv.ErrRange) {
		return maxRetryAfter
	}
	at, err := http.ParseTime(value)
	if err != nil {
		return 0
	}
	if server, err := http.ParseTime(h.Get("Date")); err == nil {
		now = server
	}
	return min(max(at.Sub(now), 0), maxRetryAfter)
}

// networkError says that no answer came. It is cacheclient.ErrUnavailable.
type networkError struct {
	// what is a sentence for the user.
	what string
	err  error
}

func (e *networkError) Error() string { return e.what }

// Unwrap leaves timeouts out: net's claim to be context.DeadlineExceeded, and a caller would take
// them for its own deadline.
func (e *networkError) Unwrap() []error {
	if isTimeout(e.err) {
		return []error{cacheclient.ErrUnavailable}
	}
	return []error{cacheclient.ErrUnavailable, e.err}
}

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout() || errors.Is(err, os.ErrDeadlineExceeded)
}

// explain turns an error of the HTTP client into one for the user, without the URL, which
// may have secrets after a redirect.
func explain(ctx context.Context, err error, host string, timeout time.Duration) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w", host, context.Cause(ctx))
	}
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		err = wrapped.Err
	}
	var dns *net.DNSError
	var cert *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	switch {
	case errors.As(err, &dns) && dns.IsNotFound:
		return &networkError{what: fmt.Sprintf("no such host %q", dns.Name), err: err}
	case errors.As(err, &cert):
		return fmt.Errorf("%s: %w; name its authority with the option ca_cert", host, err)
	case errors.As(err, &record):
		return fmt.Errorf("%s does not speak TLS; try http:// instead of https://", host)
	case isTimeout(err):
		return &networkError{what: fmt.Sprintf("%s: nothing came for %v", host, timeout), err: err}
	case errors.Is(err, syscall.ECONNREFUSED):
		return &networkError{what: host + " refuses the connection", err: err}
	}
	return &networkError{what: host + ": " + err.Error(), err: err}
}

// Retryable tells whether an attempt that ended with err may succeed when it is made again, and
// how long the source asks to wait first (0: the caller's own choice). Statuses 408, 425, 429, 500, 502, 503
// and 504, connections that are refused, reset or silent, and short bodies are worth another
// attempt; what the source said clearly, a file that changed and a cancelled context are not.
func Retryable(err error) (retry bool, after time.Duration) {
	var status *StatusError
	switch {
	case err == nil, errors.Is(err, context.Canceled), errors.Is(err, cacheclient.ErrStale):
		return false, 0
	case errors.As(err, &status):
		return retryStatus(status.Code), status.RetryAfter
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission):
		return false, 0
	}
	return retryNetwork(err), 0
}

func retryStatus(code int) bool {
	switch code {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests, http.StatusInternalServerError,
		http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

func retryNetwork(err error) bool {
	var dns *net.DNSError
	if errors.As(err, &dns) && dns.IsNotFound && !dns.IsTemporary {
		return false
	}
	var network *networkError
	if errors.As(err, &network) || isTimeout(err) {
		return true
	}
	for _, transient := range []error{
		io.ErrUnexpectedEOF, cacheclient.ErrUnavailable, syscall.ECONNRESET, syscall.ECONNREFUSED, syscall.ECONNABORTED,
		syscall.EPIPE, syscall.ETIMEDOUT, syscall.ENETUNREACH, syscall.EHOSTUNREACH,
	} {
		if errors.Is(err, transient) {
			return true
		}
	}
	return false
}
