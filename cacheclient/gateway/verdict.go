package gateway

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"millrace.io/millrace/cacheclient"
)

// State is what came of asking a source.
type State string

// The states.
const (
	// Reached says that the source answers, and shows what is there.
	Reached State = "reached"
	// Unreached says that no answer comes, or none that a source gives that works.
	Unreached State = "unreached"
	// Untrusted says that no authority that the gateway trusts vouches for the source's certificate.
	Untrusted State = "untrusted"
	// Refused says that the source does not accept the keys, or wants some.
	Refused State = "refused"
	// Failed says that the source cannot be read for another reason: an option that it does not have, or nothing there.
	Failed State = "failed"
)

// Verdict is what a gateway knows of its source. It is the answer to /source, as JSON.
type Verdict struct {
	State State `json:"state"`
	// Message says why the source is not reached, "" where it is.
	Message string `json:"message,omitempty"`
	// Options is the Fingerprint of the options that the source is asked with.
	Options string `json:"options,omitempty"`
	// busy says that the source asks to come again later.
	busy bool
}

// Fingerprint tells options apart. It is keyed with the gateway's secret, so that no reader of it can try passwords.
func Fingerprint(keys Keys, options []byte) string {
	sum := hmac.New(sha256.New, []byte(keys.SecretAccessKey))
	_, _ = sum.Write(options)
	return hex.EncodeToString(sum.Sum(nil)[:8])
}

const (
	// verdictLife is how long an answer of the source shows that it answers, at least and at most; in between it is
	// costShare times what the answer took: a source for which it is hard to answer is asked less often.
	verdictLife    = 5 * time.Second
	longestVerdict = time.Minute
	costShare      = 50
	// troubleLife is how long a source that does not answer is believed not to.
	troubleLife = 2 * time.Second
	// checkPatience is how long an answer is waited for, where the one before did not take long.
	checkPatience = 6 * time.Second
)

// verdicts remember what a check found out.
type verdicts struct {
	// mu guards the rest. It is held while the source is asked.
	mu sync.Mutex
	at time.Time
	// took is how long the source's last good answer took.
	took time.Duration
	last Verdict
}

// Check returns what is known of the source, and asks it by the beginning of its root where that is not fresh. Nothing
// is learned where the context ends.
func (g *Gateway) Check(ctx context.Context) Verdict {
	v := &g.verdicts
	v.mu.Lock()
	defer v.mu.Unlock()
	options := ""
	if g.cfg.Options != nil {
		options = g.cfg.Options()
	}
	if v.last.Options == options && v.fresh(time.Unix(0, g.source.answered.Load())) {
		return v.last
	}
	begun := time.Now()
	patience := min(max(checkPatience, 3*v.took), g.cfg.Timeout)
	silent := fmt.Errorf("nothing came for %v: %w", patience, cacheclient.ErrUnavailable)
	ctx, cancel := context.WithTimeoutCause(ctx, patience, silent)
	defer cancel()
	err := g.source.list(ctx, "", func() {}, func(cacheclient.Info) error { return errEnough })
	if errors.Is(err, context.Canceled) {
		return v.last
	}
	before := v.last
	v.at = time.Now()
	v.last = judge(err)
	v.last.Options = options
	if v.last.State == Reached {
		v.took = v.at.Sub(begun)
	}
	g.tell(before, v.last)
	return v.last
}

// tell writes into the log what has changed.
func (g *Gateway) tell(before, now Verdict) {
	switch {
	case now.State == before.State && now.Message == before.Message:
	case now.State != Reached:
		g.log.Warn("the source cannot be read now; requests will ask it again", "state", now.State, "error",
			now.Message)
	case before.State != "":
		g.log.Info("the source can be read again")
	}
}

// fresh reports whether the last verdict holds still; mu is held. answered is when the source last gave what it was
// asked for.
func (v *verdicts) fresh(answered time.Time) bool {
	if v.last.State != Reached {
		return time.Since(v.at) < troubleLife && answered.Before(v.at)
	}
	life := min(max(verdictLife, costShare*v.took), longestVerdict)
	return time.Since(v.at) < life || time.Since(answered) < verdictLife
}

// judge tells what an error of the source's root means.
func judge(err error) Verdict {
	var certificate *tls.CertificateVerificationError
	switch {
	case err == nil, errors.Is(err, errEnough):
		return Verdict{State: Reached}
	case isBusy(err):
		return Verdict{State: Unreached, Message: err.Error(), busy: true}
	case errors.As(err, &certificate):
		return Verdict{State: Untrusted, Message: err.Error()}
	case errors.Is(err, fs.ErrPermission):
		return Verdict{State: Refused, Message: err.Error()}
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, cacheclient.ErrNotDir):
		return Verdict{State: Failed, Message: err.Error()}
	case transient(err):
		return Verdict{State: Unreached, Message: err.Error()}
	}
	return Verdict{State: Failed, Message: err.Error()}
}
