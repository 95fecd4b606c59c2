package build

import (
	"bytes"
	"encoding/pem"

	"golang.org/x/crypto/x509roots/fallback/bundle"
)

// mozilla writes the certificates of the public authorities as PEM. Those that are trusted under conditions are left
// out, since a file of certificates cannot say them.
func mozilla() []byte {
	var out bytes.Buffer
	for root := range bundle.Roots() {
		if root.Constraint == nil {
			// A Buffer takes everything, and a block without headers has nothing that can be wrong.
			_ = pem.Encode(&out, &pem.Block{Type: "CERTIFICATE", Bytes: root.Certificate})
		}
	}
	return out.Bytes()
}
