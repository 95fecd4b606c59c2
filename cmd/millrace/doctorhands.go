package main

import (
	"context"
	"time"

	"millrace.io/millrace/fuse/agent"
	"millrace.io/millrace/fuse/handover"
	"millrace.io/millrace/fuse/keeping"
)

// keeperPatience is how long the keeper and the agent get to answer.
const keeperPatience = 2 * time.Second

// checkHands checks what keeps the mounts of a node while its driver and agent are away, and which pods lost theirs.
// The agent answers on the socket; where there is none, or no directory for the keeper's, this is no node of
// Kubernetes.
func checkHands(socket string) []finding {
	if socket == "" {
		runtime, err := agent.RuntimeDir()
		if err != nil {
			return nil
		}
		path, answers := nodeAgent(runtime)
		if !answers {
			return nil
		}
		socket = path
	}
	ctx, cancel := context.WithTimeout(context.Background(), keeperPatience)
	defer cancel()
	client := agent.Dial(socket)
	defer client.Close()
	mounts, err := client.Mounts(ctx)
	if err != nil {
		// It is told of with the sockets.
		return nil
	}
	var findings []finding
	if path := keeperBeside(socket); path != "" {
		kept, err := keeping.Dial(path).List(ctx)
		findings = append(findings, keeperFinding(path, len(mounts), len(kept), err))
	}
	lost, err := client.Lost(ctx)
	if err != nil {
		// It is of an earlier build.
		return findings
	}
	return append(findings, lostFindings(lost)...)
}

// keeperFinding judges a keeper that keeps so many of the mounts, or gave the error.
func keeperFinding(path string, mounts, kept int, err error) finding {
	const check, mend = "keeper", "kubectl -n millrace-system get pod -o wide -l app.kubernetes.io/component=keeper"
	switch {
	case err != nil:
		return warn(
			check,
			mend,
			"%s does not answer, and mounts are lost if driver and agent end at once: %v",
			path,
			err,
		)
	case kept < mounts:
		return warn(
			check,
			mend,
			"it keeps %d of %d mounts: others are lost if driver and agent end at once",
			kept,
			mounts,
		)
	}
	return fine(check, "it keeps all of %d mounts", mounts)
}

// lostFindings has a line for each pod that has to be restarted.
func lostFindings(pods []handover.LostPod) []finding {
	findings := make([]finding, 0, len(pods))
	for _, p := range pods {
		findings = append(findings, bad(
			"pod",
			"kubectl -n "+quoted(p.Namespace)+" delete pod "+quoted(p.Name),
			"%s/%s lost its mount of the volume %s: driver, agent and keeper were gone at once",
			p.Namespace,
			p.Name,
			p.Volume,
		))
	}
	return findings
}
