package kube

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

const (
	members = 3
	// What a member is away, more than its peers need to elect another leader.
	away = 3 * time.Second
	// An election takes up to two of etcd's default election timeouts of 1 s; the apiserver notices that a
	// connection leads to nobody only by the 2 s it gives its health check, and retries.
	unreadyMax = 20 * time.Second
)

// cluster is three members with mutual TLS, and what is needed to break and mend them.
type cluster struct {
	*world
	network *network
	urls    []string // of clients
	peers   []string // advertised, the proxies'
	admin   *clientv3.Client
}

func TestCluster(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	c := startCluster(t)
	failed := true
	defer func() {
		if failed || t.Failed() {
			c.printLogs(t)
		}
	}()
	client := kubernetes.NewForConfigOrDie(c.config)
	before := list(t, ctx, client, metav1.ListOptions{LabelSelector: createdByUs})
	seen := follow(ctx, client, before.ResourceVersion)
	probe := startProbe(ctx, c.config)
	load := startLoad(ctx, client, 4)
	load.flows(t, 50)
	load.longestPause()
	probe.longest()

	for _, fault := range []struct {
		name string
		run  func(t *testing.T, at int)
	}{
		{"killed", func(t *testing.T, at int) {
			c.members[at].kill(t)
			time.Sleep(away)
			c.members[at].start(t)
		}},
		{"paused", func(t *testing.T, at int) {
			c.members[at].signal(t, syscall.SIGSTOP)
			time.Sleep(away)
			c.members[at].signal(t, syscall.SIGCONT)
		}},
		{"cut off", func(t *testing.T, at int) {
			c.network.isolate(at)
			time.Sleep(away)
			c.network.isolate(-1)
		}},
		{"replaced", func(t *testing.T, at int) { c.replace(t, ctx, at) }},
	} {
		for at := range members {
			leads := c.leads(ctx, at)
			fault.run(t, at)
			eventually(t, "all members are healthy", func() error { return c.healthy(ctx) })
			eventually(t, "the apiserver is ready by itself", func() error { return c.ready(ctx) })
			load.flows(t, 30)
			unready := probe.longest()
			t.Logf("member %d %s (leader: %v): writes paused for %v, the apiserver was unready for %v",
				at, fault.name, leads, load.longestPause().Round(time.Millisecond), unready.Round(time.Millisecond))
			if unready > unreadyMax {
				t.Errorf("the apiserver was unready for %v", unready)
			}
		}
	}

	load.finish(t, ctx)
	seen.check(t, ctx, client)
	t.Logf("%d writes acknowledged, all there; each of %d objects was seen once, over %d watches",
		load.acknowledged.Load(), len(seen.added), seen.watches)
	failed = false
}

func startCluster(t *testing.T) *cluster {
	dir := t.TempDir()
	pki := newAuthority(t, dir)
	c := &cluster{world: &world{dir: dir}, network: newNetwork()}
	pki.issue(t, "client")
	file := func(name string) string { return filepath.Join(dir, name) }
	var all []string
	var listen []string
	for at := range members {
		port := freePort(t)
		listen = append(listen, fmt.Sprintf("https://127.0.0.1:%d", port))
		c.urls = append(c.urls, fmt.Sprintf("https://127.0.0.1:%d", freePort(t)))
		c.peers = append(c.peers, fmt.Sprintf("https://127.0.0.1:%d", c.network.proxy(t, at, port)))
		all = append(all, fmt.Sprintf("node%d=%s", at, c.peers[at]))
	}
	for at := range members {
		name := fmt.Sprintf("node%d", at)
		pki.issue(t, name)
		c.members = append(c.members, &process{
			name: name, log: file(name + ".log"), program: binary(t, "ETCD_BIN"), readyLine: "ready to serve client requests",
			args: []string{
				"--name=" + name, "--data-dir=" + file(name), "--feature-gates=InitialCorruptCheck=true",
				"--listen-client-urls=" + c.urls[at], "--advertise-client-urls=" + c.urls[at],
				"--listen-peer-urls=" + listen[at], "--initial-advertise-peer-urls=" + c.peers[at],
				"--initial-cluster=" + strings.Join(all, ","),
				"--cert-file=" + file(name+".crt"), "--key-file=" + file(name+".key"),
				"--trusted-ca-file=" + file("ca.crt"), "--client-cert-auth=true",
				"--peer-cert-file=" + file(name+".crt"), "--peer-key-file=" + file(name+".key"),
				"--peer-trusted-ca-file=" + file("ca.crt"), "--peer-client-cert-auth=true",
				"--snapshot-count=10000", "--watch-progress-notify-interval=5s",
			},
		})
	}
	c.network.members = c.members
	var starts sync.WaitGroup
	for _, member := range c.members {
		starts.Go(func() { member.start(t) })
		t.Cleanup(func() { member.stop() })
	}
	starts.Wait()
	if t.Failed() {
		t.FailNow()
	}
	c.admin = c.dial(t, c.urls)
	t.Cleanup(func() { c.admin.Close() })
	c.startAPIServer(t, c.urls, "--etcd-compaction-interval=5m")
	return c
}

// leads tells whether a member is the leader.
func (c *cluster) leads(ctx context.Context, at int) bool {
	short, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	status, err := c.admin.Status(short, c.urls[at])
	return err == nil && status.Leader == status.Header.MemberId
}

// healthy asks each member whether it follows a leader and votes.
func (c *cluster) healthy(ctx context.Context) error {
	for _, url := range c.urls {
		if err := c.ask(ctx, url); err != nil {
			return fmt.Errorf("%s: %w", url, err)
		}
	}
	return nil
}

func (c *cluster) ask(ctx context.Context, url string) error {
	short, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	status, err := c.admin.Status(short, url)
	if err != nil {
		return err
	}
	if len(status.Errors) > 0 || status.Leader == 0 || status.IsLearner {
		return fmt.Errorf("%v", status)
	}
	_, err = c.admin.HashKV(short, url, 0)
	return err
}

// replace does what one does with a member whose disk is gone: remove, add as a learner, promote.
func (c *cluster) replace(t *testing.T, ctx context.Context, at int) {
	name := c.members[at].name
	c.members[at].kill(t)
	var old uint64
	eventually(t, "the members are listed", func() error {
		short, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		known, err := c.admin.MemberList(short)
		if err != nil {
			return err
		}
		for _, member := range known.Members {
			if member.Name == name {
				old = member.ID
			}
		}
		return nil
	})
	eventually(t, "the member is removed", func() error {
		short, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		_, err := c.admin.MemberRemove(short, old)
		if err != nil && strings.Contains(err.Error(), "member not found") {
			return nil // the answer to an earlier try was lost
		}
		return err
	})
	must(t, os.RemoveAll(filepath.Join(c.dir, name)))
	var learner uint64
	eventually(t, "a learner is added", func() error {
		short, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		added, err := c.admin.MemberAddAsLearner(short, []string{c.peers[at]})
		if err != nil {
			return err
		}
		learner = added.Member.ID
		return nil
	})
	args := c.members[at].args
	if last := "--initial-cluster-state=existing"; args[len(args)-1] != last {
		c.members[at].args = append(args, last)
	}
	c.members[at].start(t)
	eventually(t, "the learner is promoted", func() error {
		short, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		_, err := c.admin.MemberPromote(short, learner)
		if err != nil && strings.Contains(err.Error(), "can only promote a learner member") && !strings.Contains(err.Error(), "in sync") {
			return nil // it is one no more
		}
		return err
	})
}

// probe asks the apiserver all the time whether it is ready.
type probe struct {
	mutex   sync.Mutex
	unready time.Time
	worst   time.Duration
}

func startProbe(ctx context.Context, config *rest.Config) *probe {
	p := &probe{}
	client := kubernetes.NewForConfigOrDie(config)
	go func() {
		for ctx.Err() == nil {
			asked := time.Now()
			short, cancel := context.WithTimeout(ctx, 5*time.Second)
			status := 0
			client.Discovery().RESTClient().Get().AbsPath("/readyz").Do(short).StatusCode(&status)
			cancel()
			p.mutex.Lock()
			if status != http.StatusOK && p.unready.IsZero() {
				p.unready = asked
			}
			if !p.unready.IsZero() {
				p.worst = max(p.worst, time.Since(p.unready))
			}
			if status == http.StatusOK {
				p.unready = time.Time{}
			}
			p.mutex.Unlock()
			time.Sleep(50 * time.Millisecond)
		}
	}()
	return p
}

// longest is the longest time the apiserver was not ready since it was last asked for.
func (p *probe) longest() time.Duration {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	worst := p.worst
	p.worst = 0
	return worst
}

// follower watches config maps and goes on where it was when the watch ends.
type follower struct {
	mutex    sync.Mutex
	added    map[string]int
	last     uint64
	watches  int
	failures []string
}

func follow(ctx context.Context, client kubernetes.Interface, version string) *follower {
	f := &follower{added: map[string]int{}}
	go func() {
		for ctx.Err() == nil {
			f.mutex.Lock()
			if f.last > 0 {
				version = fmt.Sprint(f.last)
			}
			f.watches++
			f.mutex.Unlock()
			watcher, err := client.CoreV1().ConfigMaps(namespace).Watch(ctx, metav1.ListOptions{
				LabelSelector: createdByUs, ResourceVersion: version,
			})
			if err != nil {
				time.Sleep(100 * time.Millisecond)
				continue
			}
			for event := range watcher.ResultChan() {
				if !f.note(event) {
					break
				}
			}
			watcher.Stop()
		}
	}()
	return f
}

func (f *follower) note(event watch.Event) bool {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	made, is := event.Object.(*corev1.ConfigMap)
	if !is {
		// The watch ended with an error, and the next one begins where it was.
		return false
	}
	var version uint64
	fmt.Sscan(made.ResourceVersion, &version)
	if version <= f.last {
		f.failures = append(f.failures, fmt.Sprintf("%s at %d came after %d", made.Name, version, f.last))
	}
	f.last = version
	if event.Type == watch.Added {
		f.added[made.Name]++
	}
	return true
}

// check waits for the events of all that is there, and wants each once.
func (f *follower) check(t *testing.T, ctx context.Context, client kubernetes.Interface) {
	t.Helper()
	all := list(t, ctx, client, metav1.ListOptions{LabelSelector: createdByUs})
	var newest uint64
	for _, item := range all.Items {
		newest = max(newest, number(t, item.ResourceVersion))
	}
	eventually(t, "the newest event comes", func() error {
		f.mutex.Lock()
		defer f.mutex.Unlock()
		if f.last < newest {
			return fmt.Errorf("at %d of %d", f.last, newest)
		}
		return nil
	})
	f.mutex.Lock()
	defer f.mutex.Unlock()
	for _, failure := range f.failures {
		t.Error(failure)
	}
	for _, item := range all.Items {
		if f.added[item.Name] != 1 {
			t.Errorf("%s was seen being added %d times", item.Name, f.added[item.Name])
		}
	}
	if len(f.added) != len(all.Items) {
		t.Errorf("%d objects were seen, %d are there", len(f.added), len(all.Items))
	}
}
