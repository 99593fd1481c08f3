package goclient

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Locks by the member's own service, contended by several clients, each with a lease.
func TestLockService(t *testing.T) {
	client, ctx := connect(t)
	locks := v3lockpb.NewLockClient(client.ActiveConnection())
	var held atomic.Int32
	done := make(chan error)
	const clients, turns = 5, 6
	for range clients {
		go func() {
			for range turns {
				lease, err := client.Grant(ctx, 60)
				if err != nil {
					done <- err
					return
				}
				lock, err := locks.Lock(ctx, &v3lockpb.LockRequest{Name: []byte("lock"), Lease: int64(lease.ID)})
				if err != nil {
					done <- err
					return
				}
				if now := held.Add(1); now != 1 {
					done <- fmt.Errorf("%d hold the lock", now)
					return
				}
				time.Sleep(time.Millisecond)
				held.Add(-1)
				if _, err = locks.Unlock(ctx, &v3lockpb.UnlockRequest{Key: lock.Key}); err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
	}
	for range clients {
		must(t, <-done)
	}

	first, err := locks.Lock(ctx, &v3lockpb.LockRequest{Name: []byte("lock")})
	must(t, err)
	short, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	_, err = locks.Lock(short, &v3lockpb.LockRequest{Name: []byte("lock")})
	equal(t, "code", status.Code(err), codes.DeadlineExceeded)
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		left, err := client.Get(ctx, "lock/", clientv3.WithPrefix(), clientv3.WithKeysOnly())
		must(t, err)
		if left.Count == 1 {
			equal(t, "the key left", string(left.Kvs[0].Key), string(first.Key))
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d keys are left", left.Count)
		}
	}
}

// Elections by the member's own service: campaign, observe, proclaim, resign.
func TestElectionService(t *testing.T) {
	client, ctx := connect(t)
	elections := v3electionpb.NewElectionClient(client.ActiveConnection())
	name := []byte("election")
	first, err := elections.Campaign(ctx, &v3electionpb.CampaignRequest{Name: name, Value: []byte("one")})
	must(t, err)
	observer, err := elections.Observe(ctx, &v3electionpb.LeaderRequest{Name: name})
	must(t, err)
	told := func() string {
		t.Helper()
		leader, err := observer.Recv()
		must(t, err)
		return string(leader.Kv.Value)
	}
	equal(t, "elected", told(), "one")
	_, err = elections.Proclaim(ctx, &v3electionpb.ProclaimRequest{Leader: first.Leader, Value: []byte("uno")})
	must(t, err)
	equal(t, "proclaimed", told(), "uno")

	second := make(chan *v3electionpb.CampaignResponse)
	go func() {
		won, err := elections.Campaign(ctx, &v3electionpb.CampaignRequest{Name: name, Value: []byte("two")})
		if err != nil {
			t.Error(err)
		}
		second <- won
	}()
	_, err = elections.Resign(ctx, &v3electionpb.ResignRequest{Leader: first.Leader})
	must(t, err)
	won := <-second
	equal(t, "elected", told(), "two")
	leader, err := elections.Leader(ctx, &v3electionpb.LeaderRequest{Name: name})
	must(t, err)
	equal(t, "leader", string(leader.Kv.Key), string(won.Leader.Key))
	_, err = elections.Proclaim(ctx, &v3electionpb.ProclaimRequest{Leader: first.Leader, Value: []byte("no")})
	equal(t, "error", status.Convert(err).Message(), "election: not leader")
}
