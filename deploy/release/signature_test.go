package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// newKey makes a key of a kind and gives its path, with what ssh-keygen reads as its owner's file of signers.
func newKey(t *testing.T, kind string) (key, signers string) {
	t.Helper()
	if _, err := exec.LookPath("ssh-keygen"); err != nil {
		t.Skip("needs ssh-keygen, of OpenSSH")
	}
	key = filepath.Join(t.TempDir(), "key")
	if out, err := exec.CommandContext(t.Context(), "ssh-keygen", "-q", "-t", kind, "-N", "", "-C", "a comment", "-f",
		key).CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen: %v: %s", err, out)
	}
	public, err := os.ReadFile(key + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	signers = filepath.Join(t.TempDir(), "allowed_signers")
	write(t, signers, "# those who release\n"+signer+" "+strings.Join(strings.Fields(string(public))[:2], " ")+"\n")
	return key, signers
}

// TestSignature signs a file, twice the same way, and refuses one with a flipped byte and one that another key signed.
func TestSignature(t *testing.T) {
	key, signers := newKey(t, "ed25519")
	if err := trusted(key, signers); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), checksums)
	write(t, file, "0123  file\n")
	var signatures []string
	for range 2 {
		if err := sign(t.Context(), file, key, signers); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(file + ".sig")
		if err != nil {
			t.Fatal(err)
		}
		signatures = append(signatures, string(text))
		if err := os.Remove(file + ".sig"); err != nil {
			t.Fatal(err)
		}
	}
	if signatures[0] != signatures[1] {
		t.Error("two signatures of the same bytes differ")
	}
	write(t, file+".sig", signatures[0])
	if err := verify(t.Context(), file, signers); err != nil {
		t.Error(err)
	}
	write(t, file, "0122  file\n")
	if err := verify(t.Context(), file, signers); err == nil {
		t.Error("a flipped byte is taken for signed")
	}
	write(t, file, "0123  file\n")
	_, others := newKey(t, "ed25519")
	if err := verify(t.Context(), file, others); err == nil {
		t.Error("another key's signature is taken")
	}
}

// TestUntrusted refuses keys by which users could check nothing, before anything is built.
func TestUntrusted(t *testing.T) {
	key, _ := newKey(t, "ed25519")
	_, others := newKey(t, "ed25519")
	for _, signers := range []string{others, filepath.Join(t.TempDir(), "none")} {
		if err := trusted(key, signers); err == nil || !strings.Contains(err.Error(),
			"commit it there, as the line \"millrace ssh-ed25519 ") {
			t.Error(err)
		}
	}
	ecdsa, signers := newKey(t, "ecdsa")
	if err := trusted(ecdsa, signers); err == nil || !strings.Contains(err.Error(), "ssh-ed25519 is accepted") {
		t.Error(err)
	}
	if err := os.Remove(ecdsa); err != nil {
		t.Fatal(err)
	}
	if err := trusted(ecdsa, signers); err == nil || !strings.Contains(err.Error(), "the private key cannot be read") {
		t.Error(err)
	}
	if err := os.Remove(key + ".pub"); err != nil {
		t.Fatal(err)
	}
	if err := trusted(key, signers); err == nil || !strings.Contains(err.Error(),
		"its public key has to be beside it") {
		t.Error(err)
	}
}
