package trouble

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// The reasons of a waiting container that are none of trouble: it is being made, or waits for those before it.
const (
	containerCreating = "ContainerCreating"
	podInitializing   = "PodInitializing"
	crashLoopBackOff  = "CrashLoopBackOff"
)

// imageReasons are those of a container that waits for an image that does not come.
var imageReasons = map[string]bool{
	"ErrImagePull": true, "ImagePullBackOff": true, "ErrImageNeverPull": true, "InvalidImageName": true,
	"ImageInspectError":   true,
	"RegistryUnavailable": true, "SignatureValidationFailed": true,
}

// ofContainer is the trouble of one container.
func ofContainer(pod *corev1.Pod, c *corev1.ContainerStatus, initial bool) Trouble {
	if w := c.State.Waiting; w != nil {
		switch {
		case imageReasons[w.Reason]:
			return Trouble{ImagePull, fmt.Sprintf("%s: the image %s of the container %s cannot be pulled: %s",
				name(pod), c.Image, c.Name, pullWords(w))}
		case w.Reason != "" && w.Reason != containerCreating && w.Reason != podInitializing &&
			w.Reason != crashLoopBackOff:
			return Trouble{ContainerStart, fmt.Sprintf("%s: the container %s cannot be started: %s", name(pod), c.Name,
				words(w.Reason, w.Message))}
		}
	}
	if end := ended(c, initial); end != nil {
		return crashed(pod, c.Name, end)
	}
	return Trouble{}
}

// pullWords are what kubelet says of a pull. In the pause before the next it repeats what the last one said.
func pullWords(w *corev1.ContainerStateWaiting) string {
	text := w.Message
	if rest, ok := strings.CutPrefix(text, "Back-off pulling image "); ok {
		if _, last, ok := strings.Cut(rest, `": `); ok {
			text = last
		}
	}
	if text = strings.TrimPrefix(text, "ErrImagePull: "); text == "" {
		text = w.Reason
	}
	return words(text)
}

// ended is how a container ended that should not have, nil where it has not. One that was started again counts until it
// is ready.
func ended(c *corev1.ContainerStatus, initial bool) *corev1.ContainerStateTerminated {
	end := c.State.Terminated
	if end == nil {
		end = c.LastTerminationState.Terminated
	}
	switch {
	case end == nil || c.Ready:
		return nil
	case initial && end.ExitCode == 0:
		return nil
	}
	return end
}

// crashed is the trouble of a container that has ended.
func crashed(pod *corev1.Pod, container string, end *corev1.ContainerStateTerminated) Trouble {
	reason, how := Crash, fmt.Sprintf("ended with exit code %d", end.ExitCode)
	if end.Signal != 0 {
		how = fmt.Sprintf("was ended by signal %d", end.Signal)
	}
	if end.Reason != "" {
		how += " (" + end.Reason + ")"
	}
	if end.Reason == "OOMKilled" {
		reason = OutOfMemory
	}
	message := fmt.Sprintf("%s: the container %s %s", name(pod), container, how)
	if line := lastLine(end.Message); line != "" {
		message += "; the last line of its log: " + line
	}
	return Trouble{reason, message}
}

// lastLine is the last line of a log that says something: a Java program's last lines are where it was, and not what it
// met.
func lastLine(log string) string {
	lines := strings.Split(log, "\n")
	for i := len(lines) - 1; i >= 0; i-- {
		line := words(lines[i])
		frame := strings.HasPrefix(line, "at ") && strings.HasSuffix(line, ")") ||
			strings.HasPrefix(line, "... ") && strings.HasSuffix(line, " more")
		if line != "" && !frame {
			return line
		}
	}
	return ""
}
