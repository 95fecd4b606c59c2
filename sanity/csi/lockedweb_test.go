package csi_test

import (
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
)

// lockedWeb is a web server that asks for a password, which can be changed.
type lockedWeb struct {
	url      string
	password atomic.Pointer[string]
}

func newLockedWeb(t *testing.T, dir string) *lockedWeb {
	t.Helper()
	w := &lockedWeb{}
	w.rotate("one")
	files := http.FileServer(http.Dir(dir))
	server := httptest.NewServer(http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		if user, pass, _ := r.BasicAuth(); user != "u" || pass != *w.password.Load() {
			out.WriteHeader(http.StatusUnauthorized)
			return
		}
		files.ServeHTTP(out, r)
	}))
	t.Cleanup(server.Close)
	w.url = server.URL
	return w
}

// rotate has the server take another password, and no other.
func (w *lockedWeb) rotate(password string) { w.password.Store(&password) }

// keys are the secrets with which the server lets in.
func (w *lockedWeb) keys() map[string]string {
	return map[string]string{"user": "u", "pass": *w.password.Load()}
}
