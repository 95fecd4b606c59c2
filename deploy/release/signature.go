package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"

	"golang.org/x/crypto/ssh"
)

// signer is the name by which ssh-keygen finds the key in the file of signers, and namespace what a signature is for.
const (
	signer    = "millrace"
	namespace = "file"
)

// trusted refuses a key that is not there, whose public part is not in the file in which users look for it, or that
// would sign otherwise each time.
func trusted(key, signers string) error {
	private, err := os.Open(key)
	if err != nil {
		return fmt.Errorf("SIGNING_KEY: the private key cannot be read: %w", err)
	}
	_ = private.Close()
	text, err := os.ReadFile(key + ".pub")
	if err != nil {
		return fmt.Errorf("SIGNING_KEY %s: its public key has to be beside it: %w", key, err)
	}
	public, _, _, _, err := ssh.ParseAuthorizedKey(text)
	if err != nil {
		return fmt.Errorf("SIGNING_KEY %s: its .pub is no public key of ssh: %w", key, err)
	}
	if public.Type() != ssh.KeyAlgoED25519 {
		return fmt.Errorf("SIGNING_KEY %s: it is %s, and ssh-ed25519 is accepted, which signs the same bytes the same "+
			"way each time", key, public.Type())
	}
	line := signer + " " + string(bytes.TrimSpace(ssh.MarshalAuthorizedKey(public)))
	known, err := os.ReadFile(signers)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if !bytes.Contains(append(known, '\n'), []byte(line+"\n")) {
		return fmt.Errorf("SIGNING_KEY %s: users look for its public key in %s, where it is not: commit it there, as "+
			"the line %q", key, signers, line)
	}
	return nil
}

// sign writes the signature of a file beside it, and checks it as users do.
func sign(ctx context.Context, file, key, signers string) error {
	cmd := exec.CommandContext(ctx, "ssh-keygen", "-Y", "sign", "-n", namespace, "-f", key, file)
	// A key may ask for its passphrase.
	cmd.Stdin = os.Stdin
	if said, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("ssh-keygen -Y sign: %w: %s", err, bytes.TrimSpace(said))
	}
	return verify(ctx, file, signers)
}

// verify checks the signature beside a file.
func verify(ctx context.Context, file, signers string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	cmd := exec.CommandContext(ctx, "ssh-keygen", "-Y", "verify", "-n", namespace, "-f", signers, "-I", signer, "-s",
		file+".sig")
	cmd.Stdin = f
	if said, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("ssh-keygen -Y verify: %w: %s", err, bytes.TrimSpace(said))
	}
	return nil
}
