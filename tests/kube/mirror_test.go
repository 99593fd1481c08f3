package kube

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/metadata"
)

// identity is what must stay the same of an object that nobody writes to.
type identity struct {
	uid     string
	version string
}

func identify(object metav1.Object) (string, identity) {
	name := object.GetName()
	if namespace := object.GetNamespace(); namespace != "" {
		name = namespace + "/" + name
	}
	return name, identity{string(object.GetUID()), object.GetResourceVersion()}
}

// mirror holds what one list and the watches after it tell of a kind. It goes on where a watch ended, and lists anew
// only when it is told that this is too old, so that an event which never comes is missed for good.
type mirror struct {
	resource metadata.ResourceInterface

	mutex    sync.Mutex
	there    map[string]identity
	last     string // the version to go on from
	expired  int    // how often that was too old
	problems []string
}

func startMirror(ctx context.Context, resource metadata.ResourceInterface) *mirror {
	m := &mirror{resource: resource}
	go func() {
		for ctx.Err() == nil {
			if err := m.list(ctx); err != nil {
				time.Sleep(100 * time.Millisecond)
				continue
			}
			for ctx.Err() == nil {
				err := m.watch(ctx)
				if apierrors.IsResourceExpired(err) || apierrors.IsGone(err) {
					break
				}
				time.Sleep(100 * time.Millisecond)
			}
			m.mutex.Lock()
			m.expired++
			m.mutex.Unlock()
		}
	}()
	return m
}

func (m *mirror) list(ctx context.Context) error {
	all, err := m.resource.List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	m.mutex.Lock()
	defer m.mutex.Unlock()
	m.there = map[string]identity{}
	for _, item := range all.Items {
		name, identity := identify(&item)
		m.there[name] = identity
	}
	m.last = all.ResourceVersion
	return nil
}

// watch returns when the watch ends, and why, if that is known.
func (m *mirror) watch(ctx context.Context) error {
	watcher, err := m.resource.Watch(ctx, metav1.ListOptions{ResourceVersion: m.last})
	if err != nil {
		return err
	}
	defer watcher.Stop()
	for event := range watcher.ResultChan() {
		if event.Type == watch.Error {
			return apierrors.FromObject(event.Object)
		}
		m.note(event)
	}
	return nil
}

func (m *mirror) note(event watch.Event) {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	name, now := identify(event.Object.(metav1.Object))
	before, known := m.there[name]
	var last, version uint64
	fmt.Sscan(m.last, &last)
	fmt.Sscan(now.version, &version)
	switch {
	case version <= last:
		m.problems = append(m.problems, fmt.Sprintf("%s of %s at %d came after %d", event.Type, name, version, last))
	case known != (event.Type != watch.Added):
		m.problems = append(m.problems, fmt.Sprintf("%s of %s, which was known: %v", event.Type, name, known))
	case known && before.uid != now.uid:
		m.problems = append(m.problems, fmt.Sprintf("%s of %s, which was another", event.Type, name))
	}
	if event.Type == watch.Deleted {
		delete(m.there, name)
	} else {
		m.there[name] = now
	}
	m.last = now.version
}

func (m *mirror) seen() map[string]identity {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	return maps.Clone(m.there)
}

// check wants no watch to have missed anything, and each to have been told that its version is too old if it was.
func (m *mirror) check(t *testing.T, resource string, expired bool) {
	t.Helper()
	m.mutex.Lock()
	defer m.mutex.Unlock()
	for _, problem := range m.problems {
		t.Errorf("watching %s: %s", resource, problem)
	}
	if expired && m.expired == 0 {
		t.Errorf("watching %s: nobody said that its version is too old", resource)
	}
	m.expired = 0
}
