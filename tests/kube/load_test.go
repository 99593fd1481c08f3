package kube

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// load is writers that each create objects and count in one of their own.
type load struct {
	client       kubernetes.Interface
	acknowledged atomic.Int64
	stop         context.CancelFunc
	writers      sync.WaitGroup

	mutex   sync.Mutex
	made    map[string]bool
	counted map[string]int
	last    time.Time
	pause   time.Duration
}

func startLoad(ctx context.Context, client kubernetes.Interface, writers int) *load {
	ctx, stop := context.WithCancel(ctx)
	l := &load{client: client, stop: stop, made: map[string]bool{}, counted: map[string]int{}}
	for writer := range writers {
		l.writers.Go(func() { l.write(ctx, writer) })
	}
	return l
}

func (l *load) write(ctx context.Context, writer int) {
	maps := l.client.CoreV1().ConfigMaps(namespace)
	counter := fmt.Sprintf("counter-%d", writer)
	for at := 1; ctx.Err() == nil; at++ {
		short, done := context.WithTimeout(ctx, 5*time.Second)
		fresh := fmt.Sprintf("load-%d-%d", writer, at)
		_, err := maps.Create(short, object(fresh, at), metav1.CreateOptions{})
		if err == nil {
			l.note(func() { l.made[fresh] = true })
		}
		current, err := maps.Get(short, counter, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			current, err = maps.Create(short, object(counter, 0), metav1.CreateOptions{})
		}
		if err == nil {
			current.Data["value"] = strconv.Itoa(at)
			if _, err = maps.Update(short, current, metav1.UpdateOptions{}); err == nil {
				l.note(func() { l.counted[counter] = at })
			}
		}
		done()
		if err != nil {
			time.Sleep(50 * time.Millisecond)
		}
	}
}

func (l *load) note(what func()) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	what()
	now := time.Now()
	if !l.last.IsZero() {
		l.pause = max(l.pause, now.Sub(l.last))
	}
	l.last = now
	l.acknowledged.Add(1)
}

// longestPause is the longest time without an acknowledged write since it was last asked for.
func (l *load) longestPause() time.Duration {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	pause := l.pause
	l.pause = 0
	return pause
}

func (l *load) flows(t *testing.T, more int64) {
	t.Helper()
	before := l.acknowledged.Load()
	eventually(t, "the load flows", func() error {
		if now := l.acknowledged.Load(); now < before+more {
			return fmt.Errorf("%d acknowledged", now-before)
		}
		return nil
	})
}

// finish ends the load and checks that all it was promised is there; gives all config maps by name.
func (l *load) finish(t *testing.T, ctx context.Context) map[string]string {
	t.Helper()
	l.stop()
	l.writers.Wait()

	// Straight from the member, not from the apiserver's cache.
	there := map[string]string{}
	options := metav1.ListOptions{Limit: 500}
	for {
		page := list(t, ctx, l.client, options)
		for _, item := range page.Items {
			there[item.Name] = item.Data["value"]
		}
		if options.Continue = page.Continue; page.Continue == "" {
			break
		}
	}
	for fresh := range l.made {
		if _, found := there[fresh]; !found {
			t.Errorf("%s was acknowledged and is lost", fresh)
		}
	}
	for counter, at := range l.counted {
		value, err := strconv.Atoi(there[counter])
		if err != nil || value < at {
			t.Errorf("%s is %q after %d was acknowledged", counter, there[counter], at)
		}
	}
	return there
}
