package gateway

import (
	"encoding/xml"
	"errors"
	"io/fs"
	"net/http"
	"strconv"
	"time"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/ufs"
)

// s3Error is an error as S3 tells it.
type s3Error struct {
	status int
	// code is one of S3's.
	code    string
	message string
	// retryAfter is how long the client is asked to wait, 0 for its own choice.
	retryAfter time.Duration
}

func (e *s3Error) Error() string { return e.code + ": " + e.message }

// The errors that are always the same.
var (
	errNoSuchKey = &s3Error{
		status: http.StatusNotFound, code: "NoSuchKey",
		message: "The specified key does not exist.",
	}
	errNoSuchBucket = &s3Error{
		status: http.StatusNotFound, code: "NoSuchBucket",
		message: "The specified bucket does not exist.",
	}
	errReadOnly = &s3Error{
		status: http.StatusForbidden, code: "AccessDenied",
		message: "This gateway is read-only.",
	}
	errNoRange = &s3Error{
		status: http.StatusRequestedRangeNotSatisfiable, code: "InvalidRange",
		message: "The requested range is not satisfiable.",
	}
	errPrecondition = &s3Error{
		status: http.StatusPreconditionFailed, code: "PreconditionFailed",
		message: "At least one of the preconditions you specified did not hold.",
	}
	errNotModified = &s3Error{status: http.StatusNotModified, code: "NotModified", message: "Not modified."}
	errTooLarge    = &s3Error{
		status: http.StatusBadRequest, code: "EntityTooLarge",
		message: "The source tells of a size that no file has.",
	}
	errUnknownResource = &s3Error{
		status: http.StatusNotImplemented, code: "NotImplemented",
		message: "This gateway lists and reads only.",
	}
)

func invalidArgument(message string) error {
	return &s3Error{status: http.StatusBadRequest, code: "InvalidArgument", message: message}
}

// slowDown is what S3 answers when the client should come again; its clients wait and do.
func slowDown(message string, after time.Duration) *s3Error {
	return &s3Error{status: http.StatusServiceUnavailable, code: "SlowDown", message: message, retryAfter: after}
}

// asS3 says what an error of the source or of a wait means to a client. What the source said is in the log: it is
// not for all that have the keys to know how it is reached.
func asS3(err error) *s3Error {
	var own *s3Error
	var status *ufs.StatusError
	_, after := ufs.Retryable(err)
	switch {
	case errors.As(err, &own):
		return own
	case errors.Is(err, errBusy):
		return slowDown("Please reduce your request rate.", 0)
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, cacheclient.ErrNotDir), errors.Is(err, cacheclient.ErrIsDir):
		return errNoSuchKey
	case errors.Is(err, cacheclient.ErrTooLarge):
		return errTooLarge
	case errors.Is(err, fs.ErrPermission):
		return &s3Error{status: http.StatusForbidden, code: "AccessDenied", message: "The source refuses access."}
	case errors.Is(err, cacheclient.ErrStale):
		return slowDown("The file is changing at the source.", 0)
	case transient(err):
		return slowDown("The source does not answer.", after)
	case errors.As(err, &status):
		return &s3Error{
			status: http.StatusBadGateway, code: "InternalError",
			message: "The source answers " + strconv.Itoa(status.Code) + ".",
		}
	}
	return &s3Error{
		status: http.StatusInternalServerError, code: "InternalError",
		message: "The source cannot be read; the gateway's log says why.",
	}
}

// ofAll reports whether an error concerns all paths of the source: it does not answer, or not now. What it answers
// clearly of one path says nothing of the others. D-185 says why.
func ofAll(err error) bool {
	var status *ufs.StatusError
	if !errors.As(err, &status) {
		return transient(err) && !ufs.Elsewhere(err)
	}
	switch status.Code {
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

// isBusy reports whether an error is the source's word that it has too much to do.
func isBusy(err error) bool {
	var status *ufs.StatusError
	return errors.As(err, &status) && (status.Code == http.StatusTooManyRequests ||
		status.Code == http.StatusServiceUnavailable)
}

// errorBody is the body of an error response.
type errorBody struct {
	XMLName   xml.Name `xml:"Error"`
	Code      string
	Message   string
	Resource  string `xml:",omitempty"`
	RequestID string `xml:"RequestId"`
}

// writeError answers with an error. A HEAD and a 304 have no body.
func writeError(w http.ResponseWriter, r *http.Request, e *s3Error) {
	h := w.Header()
	if e.retryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(max(1, int(e.retryAfter/time.Second))))
	}
	if r.Method == http.MethodHead || e.status == http.StatusNotModified {
		w.WriteHeader(e.status)
		return
	}
	h.Del("Etag")
	h.Del("Last-Modified")
	writeXML(w, e.status, errorBody{
		Code: e.code, Message: e.message, Resource: r.URL.Path,
		RequestID: h.Get(requestIDHeader),
	})
}

// writeXML answers with a document.
func writeXML(w http.ResponseWriter, status int, document any) {
	body, err := xml.Marshal(document)
	if err != nil {
		http.Error(w, "the response cannot be written as XML", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/xml")
	w.Header().Set("Content-Length", strconv.Itoa(len(xml.Header)+len(body)))
	w.WriteHeader(status)
	_, _ = w.Write([]byte(xml.Header))
	_, _ = w.Write(body) //nolint:gosec // The encoder has escaped it.
}
