package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/tools/cache"
)

// What the README and etcd's guide tell to add, more than the writes that clients may have seen of the old member.
const bump = 1_000_000_000

// kind is a kind of objects, and under which prefix the apiserver keeps them.
type kind struct {
	group, resource, name, prefix string
	// Whether the test makes objects of it, and removes them.
	made, removed bool
}

func (k kind) versioned() schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: k.group, Version: "v1", Resource: k.resource}
}

var (
	configMaps = kind{"", "configmaps", "ConfigMap", "/registry/configmaps/", true, true}
	events     = kind{"", "events", "Event", "/registry/events/", false, false}
	leases     = kind{"coordination.k8s.io", "leases", "Lease", "/registry/leases/", true, true}
	roles      = kind{"rbac.authorization.k8s.io", "clusterroles", "ClusterRole", "/registry/clusterroles/", true, true}
	// Nobody is there who would finish the removal of a namespace.
	namespaces = kind{"", "namespaces", "Namespace", "/registry/namespaces/", true, false}

	kinds = []kind{
		configMaps, events, leases, roles, namespaces,
		{"", "secrets", "Secret", "/registry/secrets/", true, true},
		{"", "services", "Service", "/registry/services/specs/", false, false},
		{"tests.invalid", "widgets", "Widget", "/registry/tests.invalid/widgets/", true, true},
		{
			"apiextensions.k8s.io", "customresourcedefinitions", "CustomResourceDefinition",
			"/registry/apiextensions.k8s.io/customresourcedefinitions/", false, false,
		},
	}
)

// distribution is a server and the tools that come with it.
type distribution struct{ server, ctl, utl string }

// moving is a world that goes from one distribution to another, and what watches it meanwhile.
type moving struct {
	*world
	client    *clientv3.Client // of the member
	core      kubernetes.Interface
	objects   dynamic.Interface
	metadata  metadata.Interface
	mirrors   map[kind]*mirror
	informers map[kind]cache.SharedIndexInformer
	uninform  context.CancelFunc
}

// A kube-apiserver goes from etcd to ours and back, by the snapshots of the one and the restore of the other.
//
// With a raised revision it keeps running, though it has seen writes that came after the snapshot: it and its clients
// must forget them, which they do only if the revisions that they remember are answered as compacted. Without, it is
// stopped before the snapshot and started after the restore.
func TestMoved(t *testing.T) {
	etcd := distribution{binary(t, "REAL_ETCD_BIN"), binary(t, "OFFICIAL_ETCDCTL_BIN"), binary(t, "OFFICIAL_ETCDUTL_BIN")}
	ours := distribution{binary(t, "ETCD_BIN"), binary(t, "ETCDCTL_BIN"), binary(t, "ETCDUTL_BIN")}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	m := startMoving(t, ctx, etcd.server)
	m.write(t, ctx, "first", 30)

	for _, move := range []struct {
		name     string
		from, to distribution
		running  bool
	}{
		{"to ours", etcd, ours, true},
		{"back", ours, etcd, true},
		{"to ours stopped", etcd, ours, false},
		{"back stopped", ours, etcd, false},
	} {
		if !t.Run(move.name, func(t *testing.T) { m.move(t, ctx, move.from, move.to, move.running) }) {
			m.printLogs(t)
			return
		}
	}
}

func startMoving(t *testing.T, ctx context.Context, program string) *moving {
	m := &moving{
		// No compaction but those of the restores.
		world: startOn(t, program, "--etcd-compaction-interval=10m"), mirrors: map[kind]*mirror{},
	}
	m.client = m.dial(t, []string{m.url})
	t.Cleanup(func() { m.client.Close() })
	m.core = kubernetes.NewForConfigOrDie(m.config)
	m.objects = dynamic.NewForConfigOrDie(m.config)
	m.metadata = metadata.NewForConfigOrDie(m.config)
	customResources(t, ctx, m.world)
	for _, kind := range kinds {
		m.mirrors[kind] = startMirror(ctx, m.metadata.Resource(kind.versioned()))
	}
	m.inform(ctx)
	m.agree(t, ctx)
	return m
}

// inform starts an informer of each kind, which ends with the context or uninform.
func (m *moving) inform(ctx context.Context) {
	ctx, m.uninform = context.WithCancel(ctx)
	factory := metadatainformer.NewSharedInformerFactory(m.metadata, 0)
	m.informers = map[kind]cache.SharedIndexInformer{}
	for _, kind := range kinds {
		m.informers[kind] = factory.ForResource(kind.versioned()).Informer()
	}
	factory.Start(ctx.Done())
}

// move takes the member from one distribution to the other; running tells of the apiserver.
func (m *moving) move(t *testing.T, ctx context.Context, from, to distribution, running bool) {
	old := m.client
	var names []string
	if running { // once each way, as they take their time to expire
		names = makeEvents(t, ctx, m.core)
	}
	m.agree(t, ctx)
	noted, notedAt := m.note(t, ctx)
	if !running {
		m.uninform()
		m.apiserver.kill(t)
	}
	file := func(name string) string { return filepath.Join(m.dir, filepath.Base(t.Name())+name) }
	snapshot := file(".db")
	run(t, from.ctl, "snapshot", "save", snapshot, "--endpoints="+m.url, "--cacert="+filepath.Join(m.dir, "ca.crt"),
		"--cert="+filepath.Join(m.dir, "client.crt"), "--key="+filepath.Join(m.dir, "client.key"))
	var status struct{ Revision int64 }
	must(t, json.Unmarshal(run(t, to.utl, "snapshot", "status", snapshot, "--write-out=json"), &status))
	saved := dump(t, ctx, old, status.Revision)
	granted := leasesOf(t, ctx, old, saved)
	if running {
		m.write(t, ctx, "lost", 3)
		m.agree(t, ctx)
	}
	must(t, old.Close())
	m.etcd.signal(t, syscall.SIGTERM)
	eventually(t, "the member stops", func() error {
		if !m.etcd.ended() {
			return fmt.Errorf("it runs")
		}
		return nil
	})

	floor := status.Revision
	restore := []string{
		"snapshot", "restore", snapshot, "--data-dir=" + file(""), "--name=node",
		"--initial-cluster=node=" + m.peer, "--initial-advertise-peer-urls=" + m.peer,
	}
	if running {
		floor += bump
		restore = append(restore, fmt.Sprintf("--bump-revision=%d", bump), "--mark-compacted")
	}
	run(t, to.utl, restore...)
	began := time.Now()
	m.startMember(t, to.server, filepath.Base(file("")))
	m.client = m.dial(t, []string{m.url})
	if !running {
		m.apiserver.start(t)
	}

	// The apiserver writes at once, so the member is read as it was before that.
	if restored := dump(t, ctx, m.client, floor); !maps.Equal(saved, restored) {
		t.Fatalf("saved and restored differ in%s", difference(saved, restored))
	}
	kept := leasesOf(t, ctx, m.client, saved)
	maps.DeleteFunc(kept, func(lease clientv3.LeaseID, _ string) bool { _, alive := granted[lease]; return !alive })
	if took := time.Since(began); took < eventTTL && !maps.Equal(granted, kept) {
		t.Errorf("saved and restored leases differ, %v after the start, in%s", took, difference(granted, kept))
	}
	t.Logf("%d keys and %d leases were moved at revision %d", len(saved), len(granted), status.Revision)

	m.awaitAPIServer(t)
	if !running { // informers that find no apiserver wait for up to a minute before they look again
		m.inform(ctx)
	}
	m.same(t, ctx, noted, uint64(floor))
	m.agree(t, ctx)
	for _, version := range m.write(t, ctx, "after", 3) {
		if number(t, version) <= uint64(floor) {
			t.Errorf("version %s was written after %d", version, floor)
		}
	}
	m.agree(t, ctx)
	m.old(t, ctx, noted[configMaps], notedAt, running)
	for _, kind := range kinds {
		m.mirrors[kind].check(t, kind.resource, running)
	}
	eventsExpire(t, ctx, m.core, names)
	m.agree(t, ctx)
}

// write makes some objects of each kind, changes one that was there, removes another; it gives the versions made.
func (m *moving) write(t *testing.T, ctx context.Context, label string, count int) []string {
	t.Helper()
	var versions []string
	for _, kind := range kinds {
		if !kind.made {
			continue
		}
		var resource dynamic.ResourceInterface = m.objects.Resource(kind.versioned())
		if kind != namespaces && kind != roles {
			resource = m.objects.Resource(kind.versioned()).Namespace(namespace)
		}
		all, err := resource.List(ctx, metav1.ListOptions{LabelSelector: "moved"})
		must(t, err)
		own := all.Items
		for at := range count {
			made, err := resource.Create(ctx, &unstructured.Unstructured{Object: map[string]any{
				"apiVersion": kind.versioned().GroupVersion().String(), "kind": kind.name,
				"metadata": map[string]any{
					"generateName": fmt.Sprintf("%s-%02d-", label, at), "labels": map[string]any{"moved": label},
				},
			}}, metav1.CreateOptions{})
			must(t, err)
			versions = append(versions, made.GetResourceVersion())
			own = append(own, *made)
		}
		own[0].SetLabels(map[string]string{"moved": label + "-" + own[0].GetResourceVersion()})
		changed, err := resource.Update(ctx, &own[0], metav1.UpdateOptions{})
		must(t, err)
		versions = append(versions, changed.GetResourceVersion())
		if kind.removed {
			must(t, resource.Delete(ctx, own[1].GetName(), metav1.DeleteOptions{}))
		}
	}
	return versions
}

// note gives what is there, and a version of it.
func (m *moving) note(t *testing.T, ctx context.Context) (noted map[kind]map[string]identity, version string) {
	t.Helper()
	noted = map[kind]map[string]identity{}
	var err error
	for _, kind := range kinds {
		noted[kind], version, err = m.read(ctx, kind, metav1.ListOptions{})
		must(t, err)
	}
	return noted, version
}

func (m *moving) read(ctx context.Context, kind kind, options metav1.ListOptions) (map[string]identity, string, error) {
	all, err := m.metadata.Resource(kind.versioned()).List(ctx, options)
	if err != nil {
		return nil, "", err
	}
	read := map[string]identity{}
	for _, item := range all.Items {
		name, identity := identify(&item)
		read[name] = identity
	}
	return read, all.ResourceVersion, nil
}

// same checks that the first consistent read gives what was noted: all of it, and nothing that was written since.
func (m *moving) same(t *testing.T, ctx context.Context, noted map[kind]map[string]identity, floor uint64) {
	t.Helper()
	for _, kind := range kinds {
		want := maps.Clone(noted[kind])
		var got map[string]identity
		var version string
		eventually(t, "a list of "+kind.resource, func() (err error) {
			got, version, err = m.read(ctx, kind, metav1.ListOptions{})
			return err
		})
		if number(t, version) < floor {
			t.Errorf("%s are listed at %s, which is before %d", kind.resource, version, floor)
		}
		switch kind {
		case leases: // the apiserver renews its own
			for _, leases := range []map[string]identity{want, got} {
				maps.DeleteFunc(leases, func(name string, _ identity) bool { return strings.HasPrefix(name, "kube-system/") })
			}
		case events: // some may be gone by now
			maps.DeleteFunc(want, func(name string, _ identity) bool { _, there := got[name]; return !there })
		}
		if !maps.Equal(want, got) {
			t.Errorf("noted and listed %s differ in%s", kind.resource, difference(want, got))
		}
	}
	if t.Failed() {
		t.FailNow()
	}
}

// agree waits until all that tell what is there say the same as the member.
func (m *moving) agree(t *testing.T, ctx context.Context) {
	t.Helper()
	for _, kind := range kinds {
		eventually(t, "all agree about "+kind.resource, func() error {
			short, cancel := context.WithTimeout(ctx, 10*time.Second)
			defer cancel()
			stored, err := m.client.Get(short, kind.prefix, clientv3.WithPrefix(), clientv3.WithKeysOnly())
			if err != nil {
				return err
			}
			want := map[string]string{}
			for _, kv := range stored.Kvs {
				want[strings.TrimPrefix(string(kv.Key), kind.prefix)] = fmt.Sprint(kv.ModRevision)
			}
			consistent, _, err := m.read(short, kind, metav1.ListOptions{})
			if err != nil {
				return err
			}
			cached, _, err := m.read(short, kind, metav1.ListOptions{ResourceVersion: "0"})
			if err != nil {
				return err
			}
			informed := map[string]identity{}
			for _, object := range m.informers[kind].GetStore().List() {
				name, identity := identify(object.(metav1.Object))
				informed[name] = identity
			}
			for who, said := range map[string]map[string]identity{
				"a consistent list": consistent, "a list from the cache": cached,
				"an informer": informed, "a watch": m.mirrors[kind].seen(),
			} {
				got := map[string]string{}
				for name, identity := range said {
					got[name] = identity.version
				}
				if !maps.Equal(want, got) {
					return fmt.Errorf("the member and %s differ in%s", who, difference(want, got))
				}
			}
			return nil
		})
	}
}

// old asks for what was before the move: its history came along, or is 410 where the revision was raised.
func (m *moving) old(t *testing.T, ctx context.Context, noted map[string]identity, version string, raised bool) {
	t.Helper()
	got, _, err := m.read(ctx, configMaps, metav1.ListOptions{
		ResourceVersion: version, ResourceVersionMatch: metav1.ResourceVersionMatchExact,
	})
	if raised {
		if !apierrors.IsResourceExpired(err) {
			t.Errorf("listing at %s: %v", version, err)
		}
		return
	}
	must(t, err)
	if !maps.Equal(noted, got) {
		t.Errorf("config maps at %s differ in%s", version, difference(noted, got))
	}
}

// dump gives all keys at a revision, with all that is known of each.
func dump(t *testing.T, ctx context.Context, client *clientv3.Client, revision int64) map[string]string {
	t.Helper()
	all, err := client.Get(ctx, "\x00", clientv3.WithFromKey(), clientv3.WithRev(revision))
	must(t, err)
	dumped := map[string]string{}
	for _, kv := range all.Kvs {
		dumped[string(kv.Key)] = kv.String()
	}
	return dumped
}

// leasesOf gives the time and the keys of each lease of the events in a dump.
func leasesOf(t *testing.T, ctx context.Context, client *clientv3.Client, dumped map[string]string) map[clientv3.LeaseID]string {
	t.Helper()
	found, err := client.Leases(ctx)
	must(t, err)
	granted := map[clientv3.LeaseID]string{}
	for _, lease := range found.Leases {
		known, err := client.TimeToLive(ctx, lease.ID, clientv3.WithAttachedKeys())
		must(t, err)
		var keys []string
		for _, key := range known.Keys {
			if _, is := dumped[string(key)]; is && strings.HasPrefix(string(key), events.prefix) {
				keys = append(keys, string(key))
			}
		}
		if slices.Sort(keys); len(keys) > 0 {
			granted[lease.ID] = fmt.Sprint(known.GrantedTTL, keys)
		}
	}
	return granted
}

// difference names what two maps do not have in common, up to a screen of it.
func difference[K, V comparable](want, got map[K]V) string {
	var lines []string
	for key, value := range want {
		if other, there := got[key]; !there {
			lines = append(lines, fmt.Sprintf("\n%v: only in the first: %.300q", key, fmt.Sprint(value)))
		} else if other != value {
			lines = append(lines, fmt.Sprintf("\n%v: %.300q\n  and %.300q", key, fmt.Sprint(value), fmt.Sprint(other)))
		}
	}
	for key, value := range got {
		if _, there := want[key]; !there {
			lines = append(lines, fmt.Sprintf("\n%v: only in the second: %.300q", key, fmt.Sprint(value)))
		}
	}
	slices.Sort(lines)
	return strings.Join(lines[:min(len(lines), 20)], "")
}

func run(t *testing.T, program string, args ...string) []byte {
	t.Helper()
	var stderr strings.Builder
	command := exec.Command(program, args...)
	command.Stderr = &stderr
	output, err := command.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s%s", filepath.Base(program), strings.Join(args, " "), err, output, &stderr)
	}
	return output
}
