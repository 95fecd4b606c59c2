package ufs

import (
	"errors"
	"fmt"
	"io/fs"
	"testing"
)

func TestRefusesCredentials(t *testing.T) {
	for _, c := range []struct {
		err  error
		want bool
	}{
		{&StatusError{Code: 401}, true},
		{&StatusError{Code: 407}, true},
		{fmt.Errorf("stat: %w", &StatusError{Code: 403, Reason: "InvalidAccessKeyId"}), true},
		{&StatusError{Code: 400, Reason: "ExpiredToken"}, true},
		{&StatusError{Code: 403, Reason: "AccessDenied"}, false},
		{&StatusError{Code: 403}, false},
		{&StatusError{Code: 404}, false},
		{fs.ErrPermission, false},
		{errors.New("401"), false},
		{nil, false},
	} {
		if got := RefusesCredentials(c.err); got != c.want {
			t.Errorf("%v: %v", c.err, got)
		}
	}
}
