package masters

import (
	"context"
	"log/slog"
	"net/http"
	"reflect"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"millrace.io/millrace/cacheclient/alluxio/rpc"
	"millrace.io/millrace/controller/objects"
)

// Want is what a Dataset's Alluxio is to have.
type Want struct {
	// Masters are host:port.
	Masters []string
	// User is the name that the masters run as, which may do everything.
	User string
	// Mounts are all mounts; they may have secrets.
	Mounts []rpc.Mount
	// Idle says that no pod runs that could answer, so that no master is asked.
	Idle bool
	// Sizes asks for the sizes of the sources.
	Sizes bool
	// Leaving are the hosts of workers that are about to go: what only they have is copied to others.
	Leaving []string
	// Empty has all blocks dropped, and the mounts left as they are.
	Empty bool
	// Pinned keeps what is cached below the mounts from being evicted.
	Pinned bool
	// Reserved is what each worker counts as used and caches nothing in, in bytes.
	Reserved int64
	// Sources are what the mounts show, and Hosts the addresses of the masters' pods, in the order of Masters, where
	// the gateways beside them tell of the sources; one is "" where it is not known.
	Sources []objects.Source
	Hosts   []string
	// Seen differs when something has happened to the pods, so that they are asked at once.
	Seen string
}

// Worker is one worker as the leading master knows it.
type Worker struct {
	// Address is the one to connect to: the pod's.
	Address string
	// Capacity is the size of its tiers, Used what is cached there, in bytes.
	Capacity, Used int64
}

// State is what was found out last.
type State struct {
	// Asked says that a round has ended; before that nothing is known.
	Asked bool
	// Err says why the leader could not be asked, "" where it could.
	Err string
	// Leader is host:port, as the masters call it.
	Leader string
	// Roles are those of the masters that answered, by their addresses in Want.
	Roles map[string]rpc.Role
	// Workers are the live ones.
	Workers        []Worker
	Capacity, Used int64
	// Disagree says that several masters lead, each for itself: they are not one Alluxio.
	Disagree bool
	// Sources are the verdicts on the sources that were asked, by where Alluxio has them.
	Sources map[string]SourceVerdict
	// Mounted says that the mounts are those wanted, MountErr why they are not.
	Mounted  bool
	MountErr string
	// Emptied says that no worker has a block any more, where Want.Empty asks for that, and EmptyErr why it could not be
	// asked.
	Emptied  bool
	EmptyErr string
	// Reads are what was read so far.
	Reads Reads
	// Drain is how far the copying away from workers is that are about to go.
	Drain Drain
	// Sized says that Total and Files are known: bytes and number of the sources' files.
	Sized        bool
	Total, Files int64
}

// Clusters are the Alluxios of all Datasets.
type Clusters struct {
	// Notify is called when a Dataset's state has changed. It must not wait.
	Notify func(types.NamespacedName)
	Log    *slog.Logger
	// Fast and Slow bound the pause between two rounds; 2 s and 60 s if 0.
	Fast, Slow time.Duration
	// Probe is the pause between two questions whether a master leads; 6 s if 0. Such a question, a probe of every master
	// and a round after it fit within the 15 s after which a condition is to name what is wrong.
	Probe time.Duration

	// mu guards life and byKey.
	mu sync.Mutex
	// life is the context of Start, nil before it.
	life  context.Context
	byKey map[types.NamespacedName]*cluster

	// places bounds the rounds, walks the walks, and asks the questions about sources that run at a time.
	places, walks, asks chan struct{}
	// gateways asks gateways.
	gateways *http.Client
}

const (
	// mostRounds, mostWalks and mostAsks run at a time.
	mostRounds = 32
	mostWalks  = 4
	mostAsks   = 256

	defaultFast  = 2 * time.Second
	defaultSlow  = 60 * time.Second
	defaultProbe = 6 * time.Second
)

// cluster is one Dataset's Alluxio.
type cluster struct {
	key types.NamespacedName
	// kick has a token when a round is to begin at once, look when the sources are to be asked at once.
	kick, look chan struct{}

	cancel context.CancelFunc
	done   chan struct{}

	// mu guards the rest.
	mu    sync.Mutex
	want  Want
	state State
	// walked is when the last walk ended well, walking says that one is under way, draining the same of a drain.
	walked            time.Time
	walking, draining bool
}

// Start lets rounds begin, and returns when the context has ended and they have too.
func (c *Clusters) Start(ctx context.Context) error {
	c.mu.Lock()
	c.init()
	c.life = ctx
	for _, cl := range c.byKey {
		c.begin(cl)
	}
	c.mu.Unlock()
	<-ctx.Done()
	c.mu.Lock()
	all := make([]*cluster, 0, len(c.byKey))
	for _, cl := range c.byKey {
		all = append(all, cl)
	}
	c.mu.Unlock()
	for _, cl := range all {
		<-cl.done
	}
	return nil
}

// init makes what Start and Want need, whichever comes first; mu is held.
func (c *Clusters) init() {
	if c.byKey != nil {
		return
	}
	c.byKey = make(map[types.NamespacedName]*cluster)
	c.places, c.walks, c.asks = make(chan struct{}, mostRounds), make(chan struct{}, mostWalks), make(chan struct{},
		mostAsks)
	c.gateways = newGateways()
	if c.Fast == 0 {
		c.Fast = defaultFast
	}
	if c.Slow == 0 {
		c.Slow = defaultSlow
	}
	if c.Probe == 0 {
		c.Probe = defaultProbe
	}
}

// begin starts the goroutine of a cluster; mu is held.
func (c *Clusters) begin(cl *cluster) {
	if c.life == nil || cl.cancel != nil {
		return
	}
	ctx, cancel := context.WithCancel(c.life)
	cl.cancel = cancel
	go func() {
		defer close(cl.done)
		var watching sync.WaitGroup
		defer watching.Wait()
		watching.Go(func() { c.watch(ctx, cl) })
		watching.Go(func() { c.watchLeader(ctx, cl) })
		c.follow(ctx, cl)
	}()
}

// Want says what a Dataset's Alluxio is to have.
func (c *Clusters) Want(key types.NamespacedName, want Want) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.init()
	cl := c.byKey[key]
	if cl == nil {
		cl = &cluster{key: key, kick: make(chan struct{}, 1), look: make(chan struct{}, 1), done: make(chan struct{})}
		c.byKey[key] = cl
	}
	cl.mu.Lock()
	changed := !reflect.DeepEqual(cl.want, want)
	if changed {
		if !reflect.DeepEqual(cl.want.Mounts, want.Mounts) {
			cl.state.Mounted, cl.state.Sized, cl.walked, cl.state.Sources = false, false, time.Time{}, nil
		}
		cl.want = want
	}
	cl.mu.Unlock()
	if changed {
		cl.soon()
	}
	c.begin(cl)
}

// Soon has the next round begin at once, because something happened to the pods.
func (c *Clusters) Soon(key types.NamespacedName) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if cl := c.byKey[key]; cl != nil {
		cl.soon()
	}
}

func (cl *cluster) soon() {
	for _, signal := range []chan struct{}{cl.kick, cl.look} {
		select {
		case signal <- struct{}{}:
		default:
		}
	}
}

// State is what was found out last.
func (c *Clusters) State(key types.NamespacedName) State {
	c.mu.Lock()
	defer c.mu.Unlock()
	cl := c.byKey[key]
	if cl == nil {
		return State{}
	}
	cl.mu.Lock()
	defer cl.mu.Unlock()
	return cl.state
}

// Forget ends what is done for a Dataset, and waits until it has ended.
func (c *Clusters) Forget(key types.NamespacedName) {
	c.mu.Lock()
	cl := c.byKey[key]
	delete(c.byKey, key)
	c.mu.Unlock()
	if cl == nil || cl.cancel == nil {
		return
	}
	cl.cancel()
	<-cl.done
}

func connect(want Want, log *slog.Logger) (*rpc.Cluster, error) {
	return rpc.Connect(rpc.Config{Masters: want.Masters, Security: rpc.Security{User: want.User}, Log: log})
}
