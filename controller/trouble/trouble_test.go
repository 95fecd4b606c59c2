package trouble

import (
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"
)

// now is when all is looked at; what is looked at was made a minute earlier, where nothing else is said.
var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// The words of a kubelet and containerd of Kubernetes 1.34.
const (
	notFound = `rpc error: code = NotFound desc = failed to pull and unpack image "docker.io/alluxio/alluxio:9.9": failed to resolve reference "docker.io/alluxio/alluxio:9.9": docker.io/alluxio/alluxio:9.9: not found`
	tooFull  = "0/2 nodes are available: 2 Insufficient memory. no new claims to deallocate, preemption: 0/2 nodes " +
		"are available: 2 No preemption victims found for incoming pod."
)

// statuses are those of pods as the API server has them, and what is said of them.
var statuses = []struct {
	name, node, status string
	reason             string
	says               []string
	saysNot            string
}{
	{"nothing is known yet", "", "phase: Pending", "", nil, ""},
	{"scheduled just now", "node1", "phase: Pending\nconditions: [{type: PodScheduled, status: 'True'}]", "", nil, ""},
	{"being made", "node1", "phase: Pending\ncontainerStatuses: [{name: c, state: {waiting: {reason: " +
		"ContainerCreating}}}]", "", nil, ""},
	{
		"first pull", "node1",
		"phase: Pending\ncontainerStatuses: [{name: c, image: 'alluxio/alluxio:9.9', state: {waiting: {reason: " +
			"ErrImagePull, message: '" + notFound + "'}}}]",
		ImagePull,
		[]string{"the pod hbase-master-0 on the node node1", "alluxio/alluxio:9.9", "the container c", notFound},
		"",
	},
	{
		"pause before the next pull", "node1",
		"phase: Pending\ncontainerStatuses: [{name: c, image: 'alluxio/alluxio:9.9', state: {waiting: {reason: " +
			"ImagePullBackOff, message: 'Back-off pulling image \"alluxio/alluxio:9.9\": ErrImagePull: " + notFound +
			"'}}}]",
		ImagePull,
		[]string{"cannot be pulled: " + notFound},
		"Back-off",
	},
	{
		"pause of an older kubelet", "node1",
		"phase: Pending\ncontainerStatuses: [{name: c, state: {waiting: {reason: ImagePullBackOff, message: " +
			"'Back-off pulling image \"x\"'}}}]",
		ImagePull,
		[]string{`Back-off pulling image "x"`},
		"",
	},
	{
		"never pulled", "node1",
		"phase: Pending\ncontainerStatuses: [{name: c, state: {waiting: {reason: ErrImageNeverPull, message: " +
			"'Container image \"x\" is not present with pull policy of Never'}}}]",
		ImagePull,
		[]string{"is not present with pull policy of Never"},
		"",
	},
	{
		"name of no image", "node1",
		"phase: Pending\ncontainerStatuses: [{name: c, state: {waiting: {reason: InvalidImageName, message: " +
			"'Failed to apply default image tag \"X:::\"'}}}]",
		ImagePull,
		[]string{"Failed to apply default image tag"},
		"",
	},
	{
		"image of an init container", "node1",
		"phase: Pending\ninitContainerStatuses: [{name: tier-owner, state: {waiting: {reason: " +
			"ErrImagePull}}}]\ncontainerStatuses: [{name: c, state: {waiting: {reason: PodInitializing}}}]",
		ImagePull,
		[]string{"tier-owner", "ErrImagePull"},
		"",
	},
	{
		"no node has room", "",
		"phase: Pending\nconditions: [{type: PodScheduled, status: 'False', reason: Unschedulable, message: '" +
			tooFull + "'}]",
		Unschedulable,
		[]string{"the pod hbase-master-0 cannot be scheduled: " + tooFull},
		"on the node",
	},
	{
		"gated", "", "phase: Pending\nconditions: [{type: PodScheduled, status: 'False', reason: SchedulingGated, " +
			"message: Scheduling is blocked due to non-empty scheduling gates}]",
		Unschedulable,
		[]string{"Scheduling is blocked"},
		"",
	},
	{
		"a Secret is missing", "node1",
		"phase: Pending\ncontainerStatuses: [{name: c, state: {waiting: {reason: CreateContainerConfigError, " +
			"message: 'secret \"keys\" not found'}}}]",
		ContainerStart,
		[]string{`the container c cannot be started: CreateContainerConfigError: secret "keys" not found`},
		"",
	},
	{
		"no such command", "node1",
		"phase: Running\ncontainerStatuses: [{name: c, state: {waiting: {reason: RunContainerError, message: " +
			"'exec: \"nothing\": executable file not found in $PATH'}}, lastState: {terminated: {exitCode: 128, " +
			"reason: StartError}}}]",
		ContainerStart,
		[]string{"executable file not found"},
		"",
	},
	{
		"crashed, once", "node1",
		"phase: Running\ncontainerStatuses: [{name: c, state: {terminated: {exitCode: 1, reason: Error, message: " +
			"\"first\\nInvalid property foo\\n\\tat alluxio.Main.main(Main.java:12)\\n\\t... 3 more\\n\"}}}]",
		Crash,
		[]string{"the container c ended with exit code 1 (Error); the last line of its log: Invalid property foo"},
		"Main.java",
	},
	{
		"crashed, and waits", "node1",
		"phase: Running\ncontainerStatuses: [{name: c, restartCount: 7, state: {waiting: {reason: " +
			"CrashLoopBackOff, message: back-off 5m0s restarting failed container}}, lastState: {terminated: " +
			"{exitCode: 1, reason: Error, message: Invalid property foo}}}]",
		Crash,
		[]string{"the container c ended with exit code 1 (Error); the last line of its log: Invalid property foo"},
		"5m0s",
	},
	{
		"crashed, and runs again", "node1",
		"phase: Running\ncontainerStatuses: [{name: c, restartCount: 7, state: {running: {}}, lastState: " +
			"{terminated: {exitCode: 1, reason: Error}}}]",
		Crash,
		[]string{"the container c ended with exit code 1 (Error)"},
		"log",
	},
	{
		"crashed, and is ready", "node1",
		"phase: Running\ncontainerStatuses: [{name: c, ready: true, restartCount: 7, state: {running: {}}, " +
			"lastState: {terminated: {exitCode: 1, reason: Error}}}]",
		"", nil, "",
	},
	{
		"ends well, which a server should not", "node1",
		"phase: Running\ncontainerStatuses: [{name: c, state: {waiting: {reason: CrashLoopBackOff}}, lastState: " +
			"{terminated: {exitCode: 0, reason: Completed}}}]",
		Crash,
		[]string{"exit code 0 (Completed)"},
		"",
	},
	{
		"an init container has done its work", "node1",
		"phase: Pending\ninitContainerStatuses: [{name: i, state: {terminated: {exitCode: 0, reason: Completed}}}]", "",
		nil, "",
	},
	{
		"an init container crashes", "node1",
		"phase: Pending\ninitContainerStatuses: [{name: tier-owner, state: {waiting: {reason: CrashLoopBackOff}}, " +
			"lastState: {terminated: {exitCode: 1, reason: Error, message: 'chown: read-only file system'}}}]",
		Crash,
		[]string{"tier-owner", "chown: read-only file system"},
		"",
	},
	{
		"killed for its memory", "node1",
		"phase: Running\ncontainerStatuses: [{name: c, state: {waiting: {reason: CrashLoopBackOff}}, lastState: " +
			"{terminated: {exitCode: 137, reason: OOMKilled}}}]",
		OutOfMemory,
		[]string{"exit code 137 (OOMKilled)"},
		"",
	},
	{
		"evicted", "node1", "phase: Failed\nreason: Evicted\nmessage: 'The node was low on resource: " +
			"ephemeral-storage.'",
		PodFailed,
		[]string{"has failed: Evicted: The node was low on resource"},
		"",
	},
	{
		"a gateway of two containers", "node1",
		"phase: Running\ncontainerStatuses: [{name: alluxio-master, ready: true, state: {running: {}}}, {name: " +
			"gateway-0, state: {waiting: {reason: ImagePullBackOff, message: m}}}]",
		ImagePull,
		[]string{"the container gateway-0"},
		"",
	},
	{"runs", "node1", "phase: Running\nconditions: [{type: Ready, status: 'False'}]\ncontainerStatuses: [{name: c, " +
		"ready: true, state: {running: {}}}]", "", nil, ""},
}

// podOf is a pod with a status.
func podOf(t *testing.T, node, status string) *corev1.Pod {
	t.Helper()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: "hbase-master-0", UID: "pod-0",
			CreationTimestamp: metav1.NewTime(now.Add(-time.Minute)),
		},
		Spec: corev1.PodSpec{NodeName: node},
	}
	if err := yaml.UnmarshalStrict([]byte(status), &pod.Status); err != nil {
		t.Fatal(err)
	}
	return pod
}

func check(t *testing.T, got Trouble, reason string, says []string, saysNot string) {
	t.Helper()
	if got.Reason != reason {
		t.Errorf("the trouble is %q (%s), want %q", got.Reason, got.Message, reason)
	}
	for _, text := range says {
		if !strings.Contains(got.Message, text) {
			t.Errorf("%q does not say %q", got.Message, text)
		}
	}
	if saysNot != "" && strings.Contains(got.Message, saysNot) {
		t.Errorf("%q says %q", got.Message, saysNot)
	}
	if (got.Reason == "") != (got.Message == "") || got.Reason != "" && !Is(got.Reason) {
		t.Errorf("the reason %q with the message %q", got.Reason, got.Message)
	}
}

func TestStatuses(t *testing.T) {
	for _, tc := range statuses {
		t.Run(tc.name, func(t *testing.T) {
			check(t, Part{Pods: []*corev1.Pod{podOf(t, tc.node, tc.status)}}.Find(nil, now), tc.reason, tc.says,
				tc.saysNot)
		})
	}
}

// TestPauseSaysTheSame compares what is said while kubelet tries and while it waits: no condition may change with that.
func TestPauseSaysTheSame(t *testing.T) {
	said := map[string]string{}
	for _, tc := range statuses {
		said[tc.name] = Part{Pods: []*corev1.Pod{podOf(t, tc.node, tc.status)}}.Find(nil, now).Message
	}
	for a, b := range map[string]string{
		"first pull":    "pause before the next pull",
		"crashed, once": "crashed, and waits",
	} {
		if said[a] != said[b] || said[a] == "" {
			t.Errorf("%s: %q; %s: %q", a, said[a], b, said[b])
		}
	}
}

func TestPodsThatEnd(t *testing.T) {
	pod := podOf(t, "node1", "phase: Failed\nreason: Evicted")
	pod.DeletionTimestamp = &metav1.Time{Time: now}
	check(t, Part{Pods: []*corev1.Pod{pod}}.Find(nil, now), "", nil, "")
}

func TestSeveral(t *testing.T) {
	bad := podOf(t, "node1", "phase: Pending\ncontainerStatuses: [{name: c, state: {waiting: {reason: ErrImagePull, "+
		"message: "+strings.Repeat("é", 1000)+"}}}]")
	good := podOf(t, "node1", "phase: Running")
	check(t, Part{Pods: []*corev1.Pod{good, bad}}.Find(nil, now), ImagePull, nil, "trouble too")
	check(t, Part{Pods: []*corev1.Pod{good, bad, bad}}.Find(nil, now), ImagePull,
		[]string{"; another pod has trouble too"}, "")
	three := Part{Pods: []*corev1.Pod{bad, bad, bad}}.Find(nil, now)
	check(t, three, ImagePull, []string{"...; 2 other pods have trouble too"}, "\uFFFD")
	if len(three.Message) > 1024 {
		t.Errorf("a message has %d bytes, and an Event takes 1,024", len(three.Message))
	}
}

// warning is an Event about an object, seen some time ago.
func warning(uid types.UID, reason, note string, ago time.Duration) eventsv1.Event {
	return eventsv1.Event{
		Reason: reason, Note: note, Type: corev1.EventTypeWarning, Regarding: corev1.ObjectReference{UID: uid},
		ObjectMeta:              metav1.ObjectMeta{CreationTimestamp: metav1.NewTime(now.Add(-time.Hour))},
		DeprecatedLastTimestamp: metav1.NewTime(now.Add(-ago)),
	}
}

func TestWarningsAboutPods(t *testing.T) {
	const waiting = "phase: Pending\ncontainerStatuses: [{name: c, state: {waiting: {reason: ContainerCreating}}}]"
	const missing = `MountVolume.SetUp failed for volume "hdfs" : configmap "absent" not found`
	mount := warning("pod-0", "FailedMount", missing, time.Second)
	for _, tc := range []struct {
		name, node, status string
		warnings           []eventsv1.Event
		reason             string
		says               []string
	}{
		{"mount", "node1", waiting, []eventsv1.Event{mount}, VolumeMount, []string{"on the node node1", missing}},
		{"attach", "node1", waiting, []eventsv1.Event{warning("pod-0", "FailedAttachVolume", "Multi-Attach error",
			time.Minute)}, VolumeMount, []string{"attached: Multi-Attach error"}},
		{
			"sandbox", "node1", waiting,
			[]eventsv1.Event{warning("pod-0", "FailedCreatePodSandBox", "no CNI", 0)},
			PodSandbox,
			[]string{"no CNI"},
		},
		{"the newest counts", "node1", waiting, []eventsv1.Event{
			warning("pod-0", "FailedMount", "old", time.Minute),
			mount, warning("pod-0", "FailedMount", "older", time.Hour),
		}, VolumeMount, []string{missing}},
		{"another pod's", "node1", waiting, []eventsv1.Event{warning("pod-1", "FailedMount", missing, 0)}, "", nil},
		{
			"long ago", "node1", waiting,
			[]eventsv1.Event{warning("pod-0", "FailedMount", missing, 6*time.Minute)},
			"",
			nil,
		},
		{"of no consequence", "node1", waiting, []eventsv1.Event{warning("pod-0", "Unhealthy", "probe", 0)}, "", nil},
		{
			"mended", "node1", "phase: Running\ncontainerStatuses: [{name: c, state: {running: {}}}]",
			[]eventsv1.Event{mount},
			"", nil,
		},
		{
			"a status says more", "node1",
			"phase: Pending\ncontainerStatuses: [{name: c, state: {waiting: {reason: ErrImagePull}}}]",
			[]eventsv1.Event{mount},
			ImagePull, nil,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			check(t, Part{Pods: []*corev1.Pod{podOf(t, tc.node, tc.status)}}.Find(tc.warnings, now), tc.reason, tc.says,
				"")
		})
	}
}

func TestClaimThatIsNotProvisioned(t *testing.T) {
	pod := podOf(t, "", "phase: Pending\nconditions: [{type: PodScheduled, status: 'False', reason: Unschedulable, "+
		"message: pod has unbound immediate PersistentVolumeClaims}]")
	pod.Spec.Volumes = []corev1.Volume{{VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "journal-hbase-master-0"}}}}
	told := warning("claim", "ProvisioningFailed", `storageclass.storage.k8s.io "fast" not found`, 0)
	told.Regarding.Kind, told.Regarding.Name = "PersistentVolumeClaim", "journal-hbase-master-0"
	p := Part{Pods: []*corev1.Pod{pod}}
	if !p.Wonders(now) || !p.Concerns(&told) {
		t.Error("the Events of a claim are not asked for")
	}
	check(t, p.Find([]eventsv1.Event{told}, now), Unschedulable,
		[]string{"unbound immediate PersistentVolumeClaims; the claim journal-hbase-master-0: " + told.Note}, "")
}

func TestRefusedPods(t *testing.T) {
	const prefix = "create Pod hbase-worker-0 in StatefulSet hbase-worker failed error: pods \"hbase-worker-0\" is " +
		"forbidden: "
	three := int32(3)
	set := &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{
		Name: "hbase-worker", UID: "set",
		CreationTimestamp: metav1.NewTime(now.Add(-time.Hour)),
	}, Spec: appsv1.StatefulSetSpec{Replicas: &three}}
	for note, reason := range map[string]string{
		prefix + "exceeded quota: small, requested: pods=1, used: pods=0, limited: pods=0":              Quota,
		prefix + "failed quota: small: must specify limits.memory for: alluxio-worker":                  Quota,
		prefix + `violates PodSecurity "restricted:latest": allowPrivilegeEscalation != false`:          PodSecurity,
		prefix + "maximum memory usage per Container is 1Gi, but limit is 2Gi":                          PodRefused,
		`create Pod hbase-worker-0 in StatefulSet hbase-worker failed error: admission webhook "denied`: PodRefused,
	} {
		refused := warning("set", "FailedCreate", note, 10*time.Minute)
		p := Part{Set: set}
		if !p.Wonders(now) || !p.Concerns(&refused) {
			t.Error("the Events of a StatefulSet without pods are not asked for")
		}
		check(t, p.Find([]eventsv1.Event{refused}, now), reason,
			[]string{"the StatefulSet hbase-worker cannot have all its pods: " + note}, "")
		p.Pods = []*corev1.Pod{podOf(t, "node1", "phase: Running")}
		check(t, p.Find([]eventsv1.Event{refused}, now), "", nil, "")
		whole, unseen := set.DeepCopy(), set.DeepCopy()
		whole.Status.Replicas, unseen.Generation = 3, 1
		for _, s := range []*appsv1.StatefulSet{whole, unseen} {
			p = Part{Set: s}
			if p.Wonders(now) || p.Settles() {
				t.Error("the Events are asked for of a StatefulSet that has all pods, or that its controller has not " +
					"seen")
			}
			check(t, p.Find([]eventsv1.Event{refused}, now), "", nil, "")
		}
	}
}

// TestWonders asks for Events only of what is late and silent.
func TestWonders(t *testing.T) {
	for _, tc := range []struct {
		name, node, status string
		age                time.Duration
		settles, wonders   bool
	}{
		{"being made", "node1", "phase: Pending", time.Second, true, false},
		{"late", "node1", "phase: Pending", 3 * time.Second, true, true},
		{"without a node", "", "phase: Pending", time.Minute, false, false},
		{"without room", "", "phase: Pending\nconditions: [{type: PodScheduled, status: 'False', reason: " +
			"Unschedulable, message: m}]", time.Minute, false, false},
		{
			"runs", "node1", "phase: Running\ncontainerStatuses: [{name: c, state: {running: {}}}]", time.Minute, false,
			false,
		},
	} {
		pod := podOf(t, tc.node, tc.status)
		pod.CreationTimestamp = metav1.NewTime(now.Add(-tc.age))
		p := Part{Pods: []*corev1.Pod{pod}}
		if p.Settles() != tc.settles || p.Wonders(now) != tc.wonders {
			t.Errorf("%s: settles %t, wonders %t", tc.name, p.Settles(), p.Wonders(now))
		}
	}
}

// TestSeenOfBothAPIs takes the time of an Event from where its writer puts it.
func TestSeenOfBothAPIs(t *testing.T) {
	last := metav1.NewMicroTime(now)
	for name, e := range map[string]eventsv1.Event{
		"old API": {DeprecatedLastTimestamp: metav1.NewTime(now)}, "new API": {EventTime: last},
		"series": {
			EventTime: metav1.NewMicroTime(now.Add(-time.Hour)),
			Series:    &eventsv1.EventSeries{LastObservedTime: last},
		},
		"none": {ObjectMeta: metav1.ObjectMeta{CreationTimestamp: metav1.NewTime(now)}},
	} {
		if got := seen(&e); !got.Equal(now) {
			t.Errorf("%s: %v", name, got)
		}
	}
}
