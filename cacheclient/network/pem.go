package network

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// pemBlock is one block of PEM, however its lines were broken on the way: YAML folds them into spaces, and some
// programs write \n for them.
var pemBlock = regexp.MustCompile(`-----BEGIN ([A-Z0-9 ]+)-----([^-]*)-----END ([A-Z0-9 ]+)-----`)

// IsPEM reports whether a value is meant as PEM, and not as the path of a file.
func IsPEM(value string) bool { return strings.Contains(value, "-----BEGIN ") }

// unbroken drops what breaks the lines of a block.
var unbroken = strings.NewReplacer("\\n", "", "\\r", "", "\n", "", "\r", "", " ", "", "\t", "")

// blocks are those of a text; what is between them is a comment. An error is the second half of a sentence, and repeats
// nothing of the text.
func blocks(text string) ([]*pem.Block, error) {
	found := pemBlock.FindAllStringSubmatch(text, -1)
	if len(found) == 0 || len(found) != strings.Count(text, "-----BEGIN ") {
		return nil, errors.New("has a block of PEM without its end")
	}
	all := make([]*pem.Block, len(found))
	for i, f := range found {
		content, err := base64.StdEncoding.DecodeString(unbroken.Replace(f[2]))
		if err != nil || f[1] != f[3] {
			return nil, fmt.Errorf("has a block %s that is no PEM, or is encrypted", f[1])
		}
		all[i] = &pem.Block{Type: f[1], Bytes: content}
	}
	return all, nil
}

// Certificates reads a text of PEM that has one certificate at least, and nothing but certificates. An error is the
// second half of a sentence.
func Certificates(text string) ([]*x509.Certificate, error) {
	if !IsPEM(text) {
		return nil, errors.New("is no certificate in PEM, which begins with -----BEGIN CERTIFICATE-----")
	}
	found, err := blocks(text)
	if err != nil {
		return nil, err
	}
	certs := make([]*x509.Certificate, len(found))
	for i, block := range found {
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("has a block %s; accepted are certificates", block.Type)
		}
		if certs[i], err = x509.ParseCertificate(block.Bytes); err != nil {
			return nil, fmt.Errorf("has a certificate that cannot be read, the %d. of %d", i+1, len(found))
		}
	}
	return certs, nil
}

// Text writes PEM with its lines as they should be, without what is between blocks.
func Text(text string) ([]byte, error) {
	found, err := blocks(text)
	if err != nil {
		return nil, err
	}
	var out []byte
	for _, block := range found {
		out = append(out, pem.EncodeToMemory(block)...)
	}
	return out, nil
}

// Line writes PEM as one line without commas, which IsPEM, Certificates and Text read.
func Line(text string) (string, error) {
	found, err := blocks(text)
	if err != nil {
		return "", err
	}
	var out strings.Builder
	for _, block := range found {
		fmt.Fprintf(&out, "-----BEGIN %[1]s-----%[2]s-----END %[1]s-----", block.Type,
			base64.StdEncoding.EncodeToString(block.Bytes))
	}
	return out.String(), nil
}
