package ufs

import (
	"errors"
	"net/http"
	"slices"
)

// keyReasons are the codes by which object stores say that it is the keys that they refuse.
var keyReasons = []string{
	"AuthFailure", "ExpiredToken", "InvalidAccessKeyId", "InvalidToken", "SignatureDoesNotMatch",
	"TokenRefreshRequired",
}

// RefusesCredentials reports whether an error is the source's word that it does not know the user, which says nothing
// of what was asked for: keys and passwords are rotated, and those of before end.
func RefusesCredentials(err error) bool {
	var status *StatusError
	if !errors.As(err, &status) {
		return false
	}
	return status.Code == http.StatusUnauthorized || status.Code == http.StatusProxyAuthRequired ||
		slices.Contains(keyReasons, status.Reason)
}
