// Package goclient runs etcd's official Go client on the member that ETCD_BIN names.
package goclient

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	"go.etcd.io/etcd/client/v3/leasing"
	"go.etcd.io/etcd/client/v3/namespace"
	"go.etcd.io/etcd/client/v3/ordering"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

const patience = time.Minute

type member struct {
	program, dir, url string
	port              int
	command           *exec.Cmd
	done              chan struct{}
}

func start(t *testing.T) *member {
	t.Helper()
	program := os.Getenv("ETCD_BIN")
	if program == "" {
		t.Skip("ETCD_BIN is not set")
	}
	port := freePort(t)
	m := &member{program: program, dir: t.TempDir(), port: port, url: fmt.Sprintf("http://127.0.0.1:%d", port)}
	peer := fmt.Sprintf("http://127.0.0.1:%d", freePort(t))
	m.run(t, peer)
	t.Cleanup(func() {
		m.command.Process.Kill()
		<-m.done
	})
	return m
}

func (m *member) run(t *testing.T, peer string) {
	t.Helper()
	path := filepath.Join(m.dir, "log")
	log, err := os.Create(path)
	must(t, err)
	defer log.Close()
	// By way of setpriv the kernel ends the server when this process is gone.
	m.command = exec.Command("setpriv", "--pdeathsig", "KILL", m.program, "--name=go", "--data-dir="+filepath.Join(m.dir, "data"),
		"--listen-client-urls="+m.url, "--advertise-client-urls="+m.url, "--listen-peer-urls="+peer,
		"--initial-advertise-peer-urls="+peer, "--initial-cluster=go="+peer)
	m.command.Stdout, m.command.Stderr = log, log
	started := make(chan error)
	m.done = make(chan struct{})
	go func() {
		// The signal comes when the thread that started it ends, so this one is kept.
		runtime.LockOSThread()
		started <- m.command.Start()
		m.command.Wait()
		close(m.done)
	}()
	must(t, <-started)
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		text, err := os.ReadFile(path)
		must(t, err)
		if strings.Contains(string(text), "ready to serve client requests") {
			return
		}
		select {
		case <-m.done:
			t.Fatalf("the member ended:\n%s", text)
		default:
		}
		if time.Now().After(deadline) {
			t.Fatalf("the member is not ready:\n%s", text)
		}
	}
}

func freePort(t *testing.T) int {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port
}

func connect(t *testing.T) (*clientv3.Client, context.Context) {
	t.Helper()
	m := start(t)
	return dial(t, m), deadline(t)
}

func dial(t *testing.T, m *member) *clientv3.Client {
	t.Helper()
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{m.url}, DialTimeout: 10 * time.Second})
	must(t, err)
	t.Cleanup(func() { client.Close() })
	return client
}

func deadline(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func equal[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Fatalf("%s: %v instead of %v", what, got, want)
	}
}

func isError(t *testing.T, what string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Fatalf("%s: %v instead of %v", what, got, want)
	}
}

func TestKV(t *testing.T) {
	client, ctx := connect(t)
	put, err := client.Put(ctx, "k/1", "one")
	must(t, err)
	equal(t, "the first revision", put.Header.Revision, 2)
	for at := 2; at <= 9; at++ {
		_, err = client.Put(ctx, fmt.Sprintf("k/%d", at), fmt.Sprint(at))
		must(t, err)
	}
	put, err = client.Put(ctx, "k/1", "uno", clientv3.WithPrevKV())
	must(t, err)
	equal(t, "prev", string(put.PrevKv.Value), "one")
	_, err = client.Put(ctx, "", "x")
	isError(t, "an empty key", err, rpctypes.ErrEmptyKey)
	_, err = client.Put(ctx, "none", "", clientv3.WithIgnoreValue())
	isError(t, "no value to keep", err, rpctypes.ErrKeyNotFound)
	_, err = client.Put(ctx, "k", "v", clientv3.WithLease(12345))
	isError(t, "no such lease", err, rpctypes.ErrLeaseNotFound)

	page, err := client.Get(ctx, "k/", clientv3.WithPrefix(), clientv3.WithLimit(4))
	must(t, err)
	equal(t, "rows", len(page.Kvs), 4)
	equal(t, "more", page.More, true)
	equal(t, "count", page.Count, 9)
	last, err := client.Get(ctx, "k/", clientv3.WithLastRev()...)
	must(t, err)
	equal(t, "the last written", string(last.Kvs[0].Key), "k/1")
	old, err := client.Get(ctx, "k/1", clientv3.WithRev(2))
	must(t, err)
	equal(t, "the past", string(old.Kvs[0].Value), "one")
	_, err = client.Get(ctx, "k/1", clientv3.WithRev(1000))
	isError(t, "the future", err, rpctypes.ErrFutureRev)

	txn, err := client.Txn(ctx).If(clientv3.Compare(clientv3.Value("k/1"), "=", "uno"), clientv3.Compare(clientv3.CreateRevision("new"), "=", 0)).
		Then(clientv3.OpPut("new", "1"), clientv3.OpGet("new"), clientv3.OpTxn(nil, []clientv3.Op{clientv3.OpDelete("k/9")}, nil)).
		Else(clientv3.OpGet("k/1")).Commit()
	must(t, err)
	equal(t, "succeeded", txn.Succeeded, true)
	equal(t, "read inside", string(txn.Responses[1].GetResponseRange().Kvs[0].Value), "1")
	equal(t, "deleted inside", txn.Responses[2].GetResponseTxn().Responses[0].GetResponseDeleteRange().Deleted, 1)
	_, err = client.Txn(ctx).Then(clientv3.OpPut("d", "1"), clientv3.OpPut("d", "2")).Commit()
	isError(t, "a key put twice", err, rpctypes.ErrDuplicateKey)

	deleted, err := client.Delete(ctx, "k/", clientv3.WithPrefix(), clientv3.WithPrevKV())
	must(t, err)
	equal(t, "deleted", deleted.Deleted, 8)
	equal(t, "prev of a delete", string(deleted.PrevKvs[0].Value), "uno")
	_, err = client.Compact(ctx, deleted.Header.Revision, clientv3.WithCompactPhysical())
	must(t, err)
	_, err = client.Get(ctx, "k/1", clientv3.WithRev(2))
	isError(t, "compacted", err, rpctypes.ErrCompacted)
	_, err = client.Compact(ctx, 1)
	isError(t, "compacted again", err, rpctypes.ErrCompacted)
}

func TestRangeStream(t *testing.T) {
	client, ctx := connect(t)
	for at := range 45 {
		_, err := client.Put(ctx, fmt.Sprintf("k/%02d", at), "v")
		must(t, err)
	}
	stream, err := etcdserverpb.NewKVClient(client.ActiveConnection()).RangeStream(ctx, &etcdserverpb.RangeRequest{Key: []byte("k/"), RangeEnd: []byte("k0")})
	must(t, err)
	var sizes []int
	for {
		chunk, err := stream.Recv()
		must(t, err)
		sizes = append(sizes, len(chunk.RangeResponse.Kvs))
		if header := chunk.RangeResponse.Header; header != nil {
			equal(t, "count", chunk.RangeResponse.Count, 45)
			break
		}
	}
	equal(t, "chunks", fmt.Sprint(sizes), "[10 20 15]")
}

func TestWatch(t *testing.T) {
	client, ctx := connect(t)
	first, err := client.Put(ctx, "w/0", "0")
	must(t, err)
	watching, stop := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer stop()
	past := client.Watch(watching, "w/", clientv3.WithPrefix(), clientv3.WithRev(first.Header.Revision), clientv3.WithPrevKV())
	deletes := client.Watch(watching, "w/", clientv3.WithPrefix(), clientv3.WithFilterPut(), clientv3.WithCreatedNotify())
	equal(t, "created", (<-deletes).Created, true)
	for at := range 50 {
		_, err = client.Put(ctx, fmt.Sprintf("w/%d", at%5), fmt.Sprint(at))
		must(t, err)
	}
	_, err = client.Delete(ctx, "w/", clientv3.WithPrefix())
	must(t, err)

	var seen []*clientv3.Event
	for len(seen) < 56 {
		answer := <-past
		must(t, answer.Err())
		seen = append(seen, answer.Events...)
	}
	for at, event := range seen[:51] {
		equal(t, "revision", event.Kv.ModRevision, first.Header.Revision+int64(at))
	}
	equal(t, "prev", string(seen[6].PrevKv.Value), "0")
	gone := <-deletes
	equal(t, "deletes", len(gone.Events), 5)
	equal(t, "kind", gone.Events[0].Type, mvccpb.Event_DELETE)

	must(t, client.RequestProgress(watching))
	progress := <-past
	equal(t, "progress", progress.IsProgressNotify(), true)

	now, err := client.Get(ctx, "w/")
	must(t, err)
	_, err = client.Compact(ctx, now.Header.Revision)
	must(t, err)
	compacted := <-client.Watch(ctx, "w/", clientv3.WithPrefix(), clientv3.WithRev(2))
	isError(t, "compacted", compacted.Err(), rpctypes.ErrCompacted)
	equal(t, "compacted at", compacted.CompactRevision, now.Header.Revision)
}

// The client opens its watches again by itself and goes on where it was.
func TestWatchGoesOnAfterARestart(t *testing.T) {
	m := start(t)
	client, ctx := dial(t, m), deadline(t)
	watch := client.Watch(ctx, "r/", clientv3.WithPrefix())
	_, err := client.Put(ctx, "r/1", "")
	must(t, err)
	equal(t, "before", string((<-watch).Events[0].Kv.Key), "r/1")
	must(t, m.command.Process.Kill())
	<-m.done
	m.run(t, fmt.Sprintf("http://127.0.0.1:%d", freePort(t)))
	for {
		if _, err = client.Put(ctx, "r/2", ""); err == nil {
			break
		}
		if ctx.Err() != nil {
			t.Fatal(err)
		}
	}
	equal(t, "after", string((<-watch).Events[0].Kv.Key), "r/2")
}

func TestLease(t *testing.T) {
	client, ctx := connect(t)
	short, err := client.Grant(ctx, 1)
	must(t, err)
	equal(t, "the shortest", short.TTL, 2)
	long, err := client.Grant(ctx, 3)
	must(t, err)
	_, err = client.Put(ctx, "short", "", clientv3.WithLease(short.ID))
	must(t, err)
	_, err = client.Put(ctx, "long", "", clientv3.WithLease(long.ID))
	must(t, err)
	alive, err := client.KeepAlive(ctx, long.ID)
	must(t, err)
	watch := client.Watch(ctx, "short")
	if event := (<-watch).Events[0]; event.Type != mvccpb.Event_DELETE {
		t.Fatal("the lease ran out with", event)
	}
	answer := <-alive
	equal(t, "kept alive", answer.TTL, 3)
	time.Sleep(4 * time.Second)
	left, err := client.TimeToLive(ctx, long.ID, clientv3.WithAttachedKeys())
	must(t, err)
	equal(t, "granted", left.GrantedTTL, 3)
	equal(t, "attached", string(left.Keys[0]), "long")
	leases, err := client.Leases(ctx)
	must(t, err)
	equal(t, "leases", len(leases.Leases), 1)
	_, err = client.Revoke(ctx, long.ID)
	must(t, err)
	gone, err := client.Get(ctx, "long")
	must(t, err)
	equal(t, "rows of a revoked lease", gone.Count, 0)
	_, err = client.Revoke(ctx, long.ID)
	isError(t, "revoked again", err, rpctypes.ErrLeaseNotFound)
	_, err = client.KeepAliveOnce(ctx, long.ID)
	isError(t, "a lease that is gone", err, rpctypes.ErrLeaseNotFound)
	none, err := client.TimeToLive(ctx, long.ID)
	must(t, err)
	equal(t, "time to live", none.TTL, -1)
}

func TestMaintenance(t *testing.T) {
	m := start(t)
	client, ctx := dial(t, m), deadline(t)
	_, err := client.Put(ctx, "k", "v")
	must(t, err)
	status, err := client.Status(ctx, m.url)
	must(t, err)
	equal(t, "version", status.Version[:4], "3.7.")
	equal(t, "leader", status.Leader, status.Header.MemberId)
	if status.DbSize <= 0 || status.RaftIndex == 0 || status.RaftAppliedIndex == 0 || status.RaftTerm == 0 {
		t.Fatalf("%+v", status)
	}
	hash, err := client.HashKV(ctx, m.url, 0)
	must(t, err)
	equal(t, "hashed at", hash.HashRevision, 2)
	_, err = client.HashKV(ctx, m.url, 99)
	isError(t, "the future", err, rpctypes.ErrFutureRev)
	alarms, err := client.AlarmList(ctx)
	must(t, err)
	equal(t, "alarms", len(alarms.Alarms), 0)
	_, err = client.AlarmDisarm(ctx, &clientv3.AlarmMember{})
	must(t, err)
	_, err = client.Defragment(ctx, m.url)
	must(t, err)
	_, err = client.Get(ctx, "k")
	must(t, err)
}

func TestMembers(t *testing.T) {
	m := start(t)
	client, ctx := dial(t, m), deadline(t)
	members, err := client.MemberList(ctx)
	must(t, err)
	equal(t, "members", len(members.Members), 1)
	equal(t, "name", members.Members[0].Name, "go")
	equal(t, "client URL", members.Members[0].ClientURLs[0], m.url)
	must(t, client.Sync(ctx))
	equal(t, "endpoints", client.Endpoints()[0], m.url)
}

func TestHealth(t *testing.T) {
	m := start(t)
	client, ctx := dial(t, m), deadline(t)
	answer, err := healthpb.NewHealthClient(client.ActiveConnection()).Check(ctx, &healthpb.HealthCheckRequest{})
	must(t, err)
	equal(t, "health", answer.Status, healthpb.HealthCheckResponse_SERVING)
	for _, path := range []string{"/health", "/livez", "/readyz", "/version", "/metrics"} {
		answer, err := http.Get(m.url + path)
		must(t, err)
		answer.Body.Close()
		equal(t, path, answer.StatusCode, http.StatusOK)
	}
}

func TestMutex(t *testing.T) {
	client, ctx := connect(t)
	var holders, held int
	var guard sync.Mutex
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			session, err := concurrency.NewSession(client, concurrency.WithTTL(10))
			if err != nil {
				t.Error(err)
				return
			}
			defer session.Close()
			mutex := concurrency.NewMutex(session, "mutex")
			for range 10 {
				if err := mutex.Lock(ctx); err != nil {
					t.Error(err)
					return
				}
				guard.Lock()
				holders++
				if holders != 1 {
					t.Errorf("%d hold the mutex", holders)
				}
				held++
				guard.Unlock()
				guard.Lock()
				holders--
				guard.Unlock()
				if err := mutex.Unlock(ctx); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	equal(t, "held", held, 40)
}

func TestElection(t *testing.T) {
	client, ctx := connect(t)
	session := func() *concurrency.Session {
		session, err := concurrency.NewSession(client, concurrency.WithTTL(10))
		must(t, err)
		return session
	}
	first, second := session(), session()
	defer second.Close()
	election := concurrency.NewElection(first, "election")
	must(t, election.Campaign(ctx, "first"))
	won := make(chan error, 1)
	go func() { won <- concurrency.NewElection(second, "election").Campaign(ctx, "second") }()
	leader, err := election.Leader(ctx)
	must(t, err)
	equal(t, "leader", string(leader.Kvs[0].Value), "first")
	must(t, election.Proclaim(ctx, "still first"))
	must(t, first.Close())
	must(t, <-won)
	leader, err = concurrency.NewElection(second, "election").Leader(ctx)
	must(t, err)
	equal(t, "leader", string(leader.Kvs[0].Value), "second")
}

func TestSTM(t *testing.T) {
	client, ctx := connect(t)
	const accounts, each = 5, 100
	for at := range accounts {
		_, err := client.Put(ctx, fmt.Sprintf("account/%d", at), fmt.Sprint(each))
		must(t, err)
	}
	var all sync.WaitGroup
	for worker := range 4 {
		all.Go(func() {
			for at := range 20 {
				from, to := fmt.Sprintf("account/%d", (worker+at)%accounts), fmt.Sprintf("account/%d", (worker+3*at+1)%accounts)
				if from == to {
					continue
				}
				_, err := concurrency.NewSTM(client, func(stm concurrency.STM) error {
					var a, b int
					fmt.Sscan(stm.Get(from), &a)
					fmt.Sscan(stm.Get(to), &b)
					stm.Put(from, fmt.Sprint(a-1))
					stm.Put(to, fmt.Sprint(b+1))
					return nil
				}, concurrency.WithAbortContext(ctx))
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	total := 0
	found, err := client.Get(ctx, "account/", clientv3.WithPrefix())
	must(t, err)
	for _, kv := range found.Kvs {
		var balance int
		fmt.Sscan(string(kv.Value), &balance)
		total += balance
	}
	equal(t, "total", total, accounts*each)
}

// The client's own layers: a namespace, reads kept in order, keys cached under leases.
func TestLayers(t *testing.T) {
	client, ctx := connect(t)
	inside := namespace.NewKV(client.KV, "space/")
	_, err := inside.Put(ctx, "k", "v")
	must(t, err)
	outside, err := client.Get(ctx, "space/k")
	must(t, err)
	equal(t, "rows", outside.Count, 1)

	ordered := ordering.NewKV(client.KV, ordering.NewOrderViolationSwitchEndpointClosure(client))
	_, err = ordered.Get(ctx, "space/k")
	must(t, err)

	cached, stop, err := leasing.NewKV(client, "leasing/")
	must(t, err)
	defer stop()
	_, err = cached.Put(ctx, "cached", "1")
	must(t, err)
	for range 3 {
		got, err := cached.Get(ctx, "cached")
		must(t, err)
		equal(t, "cached", string(got.Kvs[0].Value), "1")
	}
}
