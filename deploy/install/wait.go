package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"millrace.io/millrace/deploy/heartbeat"
)

// pause is the time between two looks at the cluster.
const pause = time.Second

// look is the state of the namespace now, nil where it cannot be had.
func (i *installation) look(ctx context.Context) *state {
	text, err := i.command(ctx, "", "-n", i.namespace, "get", kinds, "-o", "json", "--request-timeout=8s")
	if err != nil {
		return nil
	}
	s, err := parseState(text)
	if err != nil {
		return nil
	}
	return s
}

// await returns when all parts are ready, and says on the way what each waits for. Something that cannot mend itself
// ends it.
func (i *installation) await(ctx context.Context, parts []part, before *state) error {
	ctx, cancel := context.WithTimeout(ctx, i.patience)
	defer cancel()
	j, said := newJudge(before), map[part]string{}
	for {
		s := i.look(ctx)
		open := 0
		for _, p := range parts {
			line, done := "the API server does not answer", false
			if s != nil {
				line, done = i.line(s, p)
			}
			if !done {
				open++
			}
			if line != said[p] {
				i.say("%s: %s", p, line)
				said[p] = line
			}
			if s == nil || done {
				continue
			}
			if st := j.verdict(s, p); st != nil {
				return i.ended(ctx, st)
			}
		}
		if open == 0 {
			return nil
		}
		if time.Since(i.spoke) >= heartbeat.Interval {
			i.say("still waiting for %s", waiting(parts, said, false))
		}
		select {
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return fmt.Errorf("not ready after %v: %s", i.patience, waiting(parts, said, true))
			}
			return errors.New("interrupted; what is applied stays, and make undeploy removes it")
		case <-time.After(pause):
		}
	}
}

// waiting names the parts that are not ready, with what they wait for where that is asked.
func waiting(parts []part, said map[part]string, why bool) string {
	var open []string
	for _, p := range parts {
		if !strings.HasSuffix(said[p], "ready") {
			text := p.String()
			if why {
				text += " (" + said[p] + ")"
			}
			open = append(open, text)
		}
	}
	return strings.Join(open, ", ")
}

// line tells how far a part is and what it waits for.
func (i *installation) line(s *state, p part) (text string, done bool) {
	ready, want, done := s.ready(p)
	text = fmt.Sprintf("%d of %d ready", ready, want)
	if done {
		return text, true
	}
	for _, pod := range s.podsOf(p) {
		if wait := podWaits(s, pod); wait != "" {
			return text + "; " + wait, false
		}
	}
	if len(s.podsOf(p)) == 0 {
		return text + "; no pod yet", false
	}
	return text + "; pods of before end", false
}

// podWaits tells what a pod waits for, "" when it is ready.
func podWaits(s *state, pod *corev1.Pod) string {
	name := "pod " + pod.Name
	if pod.Spec.NodeName == "" {
		for _, c := range pod.Status.Conditions {
			if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse {
				return name + " waits for a node: " + c.Message
			}
		}
		return name + " waits for a node"
	}
	name += " on " + pod.Spec.NodeName
	for i := range pod.Status.ContainerStatuses {
		switch c := &pod.Status.ContainerStatuses[i]; {
		case c.State.Waiting != nil && (c.State.Waiting.Reason == "ErrImagePull" ||
			c.State.Waiting.Reason == "ImagePullBackOff"):
			return fmt.Sprintf("%s could not pull the image %s, and tries again", name, imageOf(pod, c))
		case c.State.Waiting != nil && c.State.Waiting.Reason == "ContainerCreating":
			return name + " " + creating(s, pod, imageOf(pod, c))
		case c.State.Waiting != nil:
			return name + ": " + c.State.Waiting.Reason
		case c.State.Terminated != nil:
			return fmt.Sprintf("%s: the container %s has ended with %d", name, c.Name, c.State.Terminated.ExitCode)
		case !c.Ready:
			return name + " runs and is not ready yet"
		}
	}
	if len(pod.Status.ContainerStatuses) == 0 {
		return name + " starts"
	}
	return ""
}

// creating tells what a container that is made waits for.
func creating(s *state, pod *corev1.Pod, image string) string {
	text := "starts"
	for _, e := range s.eventsOf(pod.UID) {
		switch e.Reason {
		case "Pulling":
			text = "pulls the image " + image
		case "Pulled":
			text = "starts"
		case "FailedMount":
			return "waits for a volume: " + e.Message
		case "FailedCreatePodSandBox":
			return "waits for its network: " + e.Message
		}
	}
	return text
}

// ended is the error of something that cannot mend itself.
func (i *installation) ended(ctx context.Context, st *stuck) error {
	why := st.why
	if line := i.lastLine(ctx, st); line != "" {
		why += "; its last line: " + line
	}
	return fmt.Errorf("%s: %s\n  to mend it: %s", st.what, why, strings.ReplaceAll(st.mend, "NAMESPACE", i.namespace))
}

// lastLine is the last line that a container wrote which ended again and again.
func (i *installation) lastLine(ctx context.Context, st *stuck) string {
	if st.pod == "" {
		return ""
	}
	for _, previous := range []string{"--previous", "--previous=false"} {
		log, err := i.command(ctx, "", "-n", i.namespace, "logs", st.pod, "-c", st.container, "--tail=1", previous)
		if log = strings.TrimSpace(log); err == nil && log != "" {
			return log
		}
	}
	return ""
}
