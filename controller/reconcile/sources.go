package reconcile

import (
	"fmt"
	"strings"

	"millrace.io/millrace/cacheclient/gateway"
	"millrace.io/millrace/controller/masters"
	"millrace.io/millrace/controller/objects"
)

// The reasons of Ready that are about sources.
const (
	// SourceUnreached says that a source does not answer.
	SourceUnreached = "SourceUnreached"
	// SourceUntrusted says that the certificate of a source is of no authority that is known.
	SourceUntrusted = "SourceUntrusted"
	// SourceRefuses says that a source does not accept the keys, or wants some.
	SourceRefuses = "SourceRefuses"
	// SourceFailed says that a source cannot be read for another reason.
	SourceFailed = "SourceFailed"
	// GatewaySilent says that the gateway to a source does not answer.
	GatewaySilent = "GatewaySilent"
)

// sourceReasons are those reasons by what came of asking.
var sourceReasons = map[gateway.State]string{
	gateway.Unreached: SourceUnreached, gateway.Untrusted: SourceUntrusted, gateway.Refused: SourceRefuses,
	gateway.Failed: SourceFailed,
	masters.Silent: GatewaySilent,
}

// ofSources reports whether a reason of Ready is about a source.
func ofSources(reason string) bool {
	for _, r := range sourceReasons {
		if r == reason {
			return true
		}
	}
	return false
}

// sourcesAsked reports whether there is a verdict on each source.
func sourcesAsked(sources []objects.Source, state masters.State) bool {
	for i := range sources {
		if _, asked := state.Sources[sources[i].Path]; !asked {
			return false
		}
	}
	return true
}

// ailing reports whether a source cannot be read, so that a Secret may be mended at any moment.
func ailing(state masters.State) bool {
	for _, v := range state.Sources {
		if v.State != gateway.Reached || v.Stale {
			return true
		}
	}
	return false
}

// sourceTrouble is the first source that cannot be read, in a sentence, and how many others; the zero verdict where
// there is none. cached are the bytes that are cached.
func sourceTrouble(sources []objects.Source, state masters.State) verdict {
	var first verdict
	more := 0
	for i := range sources {
		source := &sources[i]
		v, asked := state.Sources[source.Path]
		if !asked || v.State == gateway.Reached {
			continue
		}
		if first.reason != "" {
			more++
			continue
		}
		first = verdict{false, sourceReasons[v.State], sourceSentence(source, v)}
	}
	switch {
	case first.reason == "":
		return verdict{}
	case more == 1:
		first.message += "; another source cannot be read either"
	case more > 1:
		first.message += fmt.Sprintf("; %d other sources cannot be read either", more)
	}
	if state.Used > 0 {
		first.message += "; what is cached is served"
	}
	return first
}

// sourceSentence says what is wrong with a source, and names what to mend.
func sourceSentence(source *objects.Source, v masters.SourceVerdict) string {
	name := "the source " + source.Address
	if source.Name != "" {
		name += " of the mount " + source.Name
	}
	switch v.State {
	case gateway.Unreached:
		return fmt.Sprintf("%s is not reached: %s", name, v.Message)
	case gateway.Untrusted:
		return fmt.Sprintf("%s is not trusted: %s", name, v.Message)
	case gateway.Refused:
		switch {
		case source.Secrets == "":
			return fmt.Sprintf("%s refuses access, and the mount names no Secret with keys (encryptOptions): %s",
				name, v.Message)
		case v.Stale:
			return fmt.Sprintf("%s refuses the keys that the Secret %s had, and the new ones are on their way: %s",
				name, source.Secrets, v.Message)
		}
		return fmt.Sprintf("%s refuses the keys of the Secret %s: %s", name, source.Secrets, v.Message)
	case masters.Silent:
		return fmt.Sprintf("the gateway to %s beside the leading master does not answer: %s", strings.TrimPrefix(name,
			"the source "), v.Message)
	}
	return fmt.Sprintf("%s cannot be read: %s", name, v.Message)
}

// reads is the verdict as people are told it: where a source cannot be read, why. What the phase is decided by stays
// the verdict itself: Alluxio serves what it has.
func (v verdict) reads(source verdict) verdict {
	switch {
	case source.reason == "":
		return v
	case v.served:
		return source
	case v.reason == "NotMounted":
		return verdict{false, source.reason, source.message + "; " + v.message}
	}
	return v
}
