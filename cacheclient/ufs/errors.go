package ufs

import (
	"context"
	"crypto/tls"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"mime"
	"net"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"
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
	// Reason is the code that an object store gives beside the status, "" elsewhere.
	Reason string
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
	sentence := e.URL + " answers " + strconv.Itoa(e.Code) + text
	if e.Reason != "" {
		sentence += " (" + e.Reason + ")"
	}
	if e.Reason == archived {
		sentence += ": the object is archived and must be restored before it can be read"
	}
	return sentence
}

// archived is the code for an object that is there, in a storage class that does not give it out.
const archived = "InvalidObjectState"

// Busy reports whether the server answers, and asks to come back later: it is not down.
func (e *StatusError) Busy() bool {
	return e.Code == http.StatusTooManyRequests || e.Code == http.StatusServiceUnavailable
}

// Unwrap is what the status means to a file system, if anything.
func (e *StatusError) Unwrap() error {
	if e.Reason == archived {
		// No caller is refused.
		return nil
	}
	switch e.Code {
	case http.StatusNotFound, http.StatusGone:
		return fs.ErrNotExist
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusProxyAuthRequired,
		http.StatusUnavailableForLegalReasons:
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
	return &StatusError{
		Code: resp.StatusCode, Reason: s3Reason(resp), RetryAfter: retryAfter(resp.Header, time.Now()),
		URL: show,
	}
}

// maxReason bounds what is read of the document that explains a status.
const maxReason = 8 << 10

// s3Reason is the code in the document by which an object store explains a status, "" where there is none.
func s3Reason(resp *http.Response) string {
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if resp.Body == nil || kind != "application/xml" && kind != "text/xml" {
		return ""
	}
	slow := time.AfterFunc(time.Second, func() { _ = resp.Body.Close() })
	defer slow.Stop()
	var document struct {
		XMLName xml.Name `xml:"Error"`
		Code    string
	}
	err := xml.NewDecoder(io.LimitReader(resp.Body, maxReason)).Decode(&document)
	if err != nil || !reasonCode.MatchString(document.Code) {
		return ""
	}
	return document.Code
}

// reasonCode is what codes of errors look like.
var reasonCode = regexp.MustCompile(`^[A-Za-z0-9.]{1,64}$`)

// retryAfter reads the header Retry-After, which is seconds or a date (RFC 9110, section
// 10.2.3). A date counts from the server's own clock where it tells it.
func retryAfter(h http.Header, now time.Time) time.Duration {
	value := strings.TrimSpace(h.Get("Retry-After"))
	if value == "" {
		return 0
	}
	// Some write fractions.
	whole, _, _ := strings.Cut(value, ".")
	if seconds, err := strconv.ParseUint(whole, 10, 31); err == nil {
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
	// elsewhere says that the source has answered, by sending the request on to another host, which did not.
	elsewhere bool
}

// Elsewhere reports whether an error is of a host that the source sent a request on to: it says nothing of the source.
func Elsewhere(err error) bool {
	var network *networkError
	return errors.As(err, &network) && network.elsewhere
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

// badLength is how net/http says that a Content-Length has too many digits for it.
var badLength = regexp.MustCompile(`bad Content-Length "[0-9]+"`)

// badHead is how net/http says that it does not understand the head of one answer. The source has answered, and may
// answer well to others.
var badHead = regexp.MustCompile(`Content-Length|MIME header|transfer encoding|trailer key|response headers exceeded`)

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
	if op := (*net.OpError)(nil); errors.As(err, &op) && op.Op == "proxyconnect" {
		host = "the proxy on the way to " + host
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
	case errors.Is(err, errInside):
		return fmt.Errorf("%s: %w", host, errInside)
	case badLength.MatchString(err.Error()):
		return fmt.Errorf("%s announces a body of a length that no number holds: %w", host, cacheclient.ErrTooLarge)
	case badHead.MatchString(err.Error()):
		return fmt.Errorf("%s answers by a head that HTTP does not have: %.200s", host, err.Error())
	case isTimeout(err):
		return &networkError{what: fmt.Sprintf("%s: nothing came for %v", host, timeout), err: err}
	case errors.Is(err, syscall.ECONNREFUSED):
		return &networkError{what: host + " refuses the connection", err: err}
	}
	return &networkError{what: host + ": " + err.Error(), err: err}
}

// Retryable reports whether an attempt that ended with err may succeed when it is made again, and
// how long the source asks to wait first (0: the caller's own choice). Statuses 408, 425, 429, 500, 502, 503
// and 504, connections that are refused, reset or silent, and short bodies are worth another
// attempt; what the source said clearly, a file that changed and a cancelled context are not.
func Retryable(err error) (retry bool, after time.Duration) {
	var status *StatusError
	switch {
	case err == nil, errors.Is(err, context.Canceled), errors.Is(err, cacheclient.ErrStale):
		return false, 0
	case errors.As(err, &status) && retryStatus(status.Code):
		return true, status.RetryAfter
	case status != nil:
		return false, 0
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
