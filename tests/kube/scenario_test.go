// Package kube runs a real kube-apiserver on a member: ETCD_BIN is the server
// under test, APISERVER_BIN the apiserver. To move it from etcd and back takes
// the tools as well: ETCDCTL_BIN, ETCDUTL_BIN, and etcd's REAL_ETCD_BIN,
// OFFICIAL_ETCDCTL_BIN and OFFICIAL_ETCDUTL_BIN.
package kube

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/client/clientset/clientset"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/util/retry"
)

const (
	namespace   = "default"
	objects     = 2000
	eventTTL    = 15 * time.Second
	patience    = 2 * time.Minute
	restarts    = 3
	pageOfList  = 300
	createdByUs = "made-by=scenario"
)

func TestScenario(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Minute)
	defer cancel()
	world := start(t)
	client := kubernetes.NewForConfigOrDie(world.config)

	firstVersion := list(t, ctx, client, metav1.ListOptions{}).ResourceVersion
	events := makeEvents(t, ctx, client)

	for _, part := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"componentstatuses", func(t *testing.T) { componentStatuses(t, ctx, client) }},
		{"objects", func(t *testing.T) { createAndWatch(t, ctx, client) }},
		{"pages", func(t *testing.T) { listInPages(t, ctx, client) }},
		{"conflicts", func(t *testing.T) { conflicts(t, ctx, client) }},
		{"crd", func(t *testing.T) { customResources(t, ctx, world) }},
		{"events", func(t *testing.T) { eventsExpire(t, ctx, client, events) }},
		{"compaction", func(t *testing.T) { oldVersionsGo(t, ctx, client, firstVersion) }},
		{"kill", func(t *testing.T) { killUnderLoad(t, ctx, world, client) }},
	} {
		if !t.Run(part.name, part.run) {
			world.printLogs(t)
			return
		}
	}
}

// The apiserver asks the member for its health on its own.
func componentStatuses(t *testing.T, ctx context.Context, client kubernetes.Interface) {
	statuses, err := client.CoreV1().ComponentStatuses().List(ctx, metav1.ListOptions{})
	must(t, err)
	for _, status := range statuses.Items {
		if status.Name != "etcd-0" {
			continue
		}
		for _, condition := range status.Conditions {
			if condition.Type == corev1.ComponentHealthy && condition.Status == corev1.ConditionTrue {
				return
			}
		}
		t.Fatalf("etcd-0 is not healthy: %+v", status.Conditions)
	}
	t.Fatalf("no etcd-0 among %+v", statuses.Items)
}

func createAndWatch(t *testing.T, ctx context.Context, client kubernetes.Interface) {
	before := list(t, ctx, client, metav1.ListOptions{LabelSelector: createdByUs})
	watcher, err := client.CoreV1().ConfigMaps(namespace).Watch(ctx, metav1.ListOptions{
		LabelSelector: createdByUs, ResourceVersion: before.ResourceVersion,
	})
	must(t, err)
	defer watcher.Stop()

	var workers sync.WaitGroup
	var failed atomic.Value
	next := make(chan int)
	for range 8 {
		workers.Go(func() {
			for at := range next {
				if _, err := client.CoreV1().ConfigMaps(namespace).Create(ctx, object(name(at), 0), metav1.CreateOptions{}); err != nil {
					failed.Store(err)
				}
			}
		})
	}
	for at := range objects {
		next <- at
	}
	close(next)
	workers.Wait()
	if err := failed.Load(); err != nil {
		t.Fatal("create:", err)
	}

	seen := map[string]bool{}
	var last uint64
	deadline := time.After(patience)
	for len(seen) < objects {
		select {
		case event, open := <-watcher.ResultChan():
			if !open {
				t.Fatalf("the watch ended after %d of %d objects", len(seen), objects)
			}
			if event.Type != watch.Added {
				t.Fatalf("%s instead of ADDED: %+v", event.Type, event.Object)
			}
			made := event.Object.(*corev1.ConfigMap)
			if seen[made.Name] {
				t.Fatalf("%s came twice", made.Name)
			}
			seen[made.Name] = true
			version := number(t, made.ResourceVersion)
			if version <= last {
				t.Fatalf("%s: version %d came after %d", made.Name, version, last)
			}
			last = version
		case <-deadline:
			t.Fatalf("%d of %d objects were seen", len(seen), objects)
		}
	}
}

// resourceVersion "" with a limit reads from the member, page after page at one revision.
func listInPages(t *testing.T, ctx context.Context, client kubernetes.Interface) {
	all := list(t, ctx, client, metav1.ListOptions{})
	total := len(all.Items)
	seen := map[string]bool{}
	options := metav1.ListOptions{Limit: pageOfList}
	for {
		page := list(t, ctx, client, options)
		for _, item := range page.Items {
			if seen[item.Name] {
				t.Fatalf("%s is on two pages", item.Name)
			}
			seen[item.Name] = true
		}
		if page.Continue == "" {
			break
		}
		if len(page.Items) != pageOfList {
			t.Fatalf("a page of %d", len(page.Items))
		}
		remaining := page.RemainingItemCount
		if remaining == nil || int(*remaining) != total-len(seen) {
			t.Fatalf("%v remain after %d of %d", remaining, len(seen), total)
		}
		options.Continue = page.Continue
		// Written meanwhile, and no part of this list.
		late := object(fmt.Sprintf("zz-late-%d", len(seen)), 0)
		_, err := client.CoreV1().ConfigMaps(namespace).Create(ctx, late, metav1.CreateOptions{})
		must(t, err)
	}
	if len(seen) != total {
		t.Fatalf("%d of %d objects on the pages", len(seen), total)
	}
}

func conflicts(t *testing.T, ctx context.Context, client kubernetes.Interface) {
	maps := client.CoreV1().ConfigMaps(namespace)
	stale, err := maps.Get(ctx, name(1), metav1.GetOptions{})
	must(t, err)
	fresh := stale.DeepCopy()
	fresh.Data["value"] = "fresh"
	_, err = maps.Update(ctx, fresh, metav1.UpdateOptions{})
	must(t, err)
	stale.Data["value"] = "stale"
	if _, err = maps.Update(ctx, stale, metav1.UpdateOptions{}); !apierrors.IsConflict(err) {
		t.Fatal("a stale update was not a conflict:", err)
	}
	if _, err = maps.Create(ctx, object(name(1), 0), metav1.CreateOptions{}); !apierrors.IsAlreadyExists(err) {
		t.Fatal("a second creation:", err)
	}

	const writers, increments = 5, 20
	var all sync.WaitGroup
	errs := make(chan error, writers)
	for range writers {
		all.Go(func() {
			for range increments {
				backoff := retry.DefaultBackoff
				backoff.Steps = 1000
				err := retry.RetryOnConflict(backoff, func() error {
					counter, err := maps.Get(ctx, name(0), metav1.GetOptions{})
					if err != nil {
						return err
					}
					value, err := strconv.Atoi(counter.Data["value"])
					if err != nil {
						return err
					}
					counter.Data["value"] = strconv.Itoa(value + 1)
					_, err = maps.Update(ctx, counter, metav1.UpdateOptions{})
					return err
				})
				if err != nil {
					errs <- err
					return
				}
			}
		})
	}
	all.Wait()
	close(errs)
	for err := range errs {
		t.Fatal(err)
	}
	counter, err := maps.Get(ctx, name(0), metav1.GetOptions{})
	must(t, err)
	if want := strconv.Itoa(writers * increments); counter.Data["value"] != want {
		t.Fatalf("the counter is %s after %s increments", counter.Data["value"], want)
	}
	must(t, maps.Delete(ctx, name(2), metav1.DeleteOptions{}))
	if _, err = maps.Get(ctx, name(2), metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Fatal("a deleted object:", err)
	}
}

func customResources(t *testing.T, ctx context.Context, world *world) {
	definitions := apiextensions.NewForConfigOrDie(world.config).ApiextensionsV1().CustomResourceDefinitions()
	preserve := true
	_, err := definitions.Create(ctx, &apiextensionsv1.CustomResourceDefinition{
		ObjectMeta: metav1.ObjectMeta{Name: "widgets.tests.invalid"},
		Spec: apiextensionsv1.CustomResourceDefinitionSpec{
			Group: "tests.invalid",
			Scope: apiextensionsv1.NamespaceScoped,
			Names: apiextensionsv1.CustomResourceDefinitionNames{Plural: "widgets", Singular: "widget", Kind: "Widget", ListKind: "WidgetList"},
			Versions: []apiextensionsv1.CustomResourceDefinitionVersion{{
				Name: "v1", Served: true, Storage: true,
				Schema: &apiextensionsv1.CustomResourceValidation{OpenAPIV3Schema: &apiextensionsv1.JSONSchemaProps{
					Type: "object", XPreserveUnknownFields: &preserve,
				}},
			}},
		},
	}, metav1.CreateOptions{})
	must(t, err)
	eventually(t, "the definition is established", func() error {
		definition, err := definitions.Get(ctx, "widgets.tests.invalid", metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, condition := range definition.Status.Conditions {
			if condition.Type == apiextensionsv1.Established && condition.Status == apiextensionsv1.ConditionTrue {
				return nil
			}
		}
		return fmt.Errorf("%+v", definition.Status.Conditions)
	})

	widgets := dynamic.NewForConfigOrDie(world.config).
		Resource(schema.GroupVersionResource{Group: "tests.invalid", Version: "v1", Resource: "widgets"}).Namespace(namespace)
	const count = 50
	for at := range count {
		widget := &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "tests.invalid/v1", "kind": "Widget",
			"metadata": map[string]any{"name": fmt.Sprintf("w%02d", at)},
			"spec":     map[string]any{"size": int64(at)},
		}}
		// The paths of a new resource appear a moment after it is established.
		eventually(t, "a widget is created", func() error {
			_, err := widgets.Create(ctx, widget, metav1.CreateOptions{})
			return err
		})
	}
	all, err := widgets.List(ctx, metav1.ListOptions{})
	must(t, err)
	if len(all.Items) != count {
		t.Fatalf("%d widgets of %d", len(all.Items), count)
	}
	watcher, err := widgets.Watch(ctx, metav1.ListOptions{ResourceVersion: all.GetResourceVersion()})
	must(t, err)
	defer watcher.Stop()
	widget := all.Items[7].DeepCopy()
	must(t, unstructured.SetNestedField(widget.Object, int64(700), "spec", "size"))
	_, err = widgets.Update(ctx, widget, metav1.UpdateOptions{})
	must(t, err)
	must(t, widgets.Delete(ctx, "w08", metav1.DeleteOptions{}))
	for _, want := range []struct {
		kind watch.EventType
		name string
	}{{watch.Modified, "w07"}, {watch.Deleted, "w08"}} {
		select {
		case event := <-watcher.ResultChan():
			if got := event.Object.(metav1.Object).GetName(); event.Type != want.kind || got != want.name {
				t.Fatalf("%s %s instead of %s %s", event.Type, got, want.kind, want.name)
			}
		case <-time.After(patience):
			t.Fatalf("no %s of %s", want.kind, want.name)
		}
	}
}

// Events live as long as the lease they are written with.
func makeEvents(t *testing.T, ctx context.Context, client kubernetes.Interface) []string {
	var names []string
	for at := range 100 {
		event := &corev1.Event{
			ObjectMeta:     metav1.ObjectMeta{Name: fmt.Sprintf("event-%d", at), Namespace: namespace},
			InvolvedObject: corev1.ObjectReference{Kind: "ConfigMap", Namespace: namespace, Name: name(at)},
			Reason:         "Tested", Message: "made by the scenario", Type: corev1.EventTypeNormal,
		}
		_, err := client.CoreV1().Events(namespace).Create(ctx, event, metav1.CreateOptions{})
		must(t, err)
		names = append(names, event.Name)
	}
	_, err := client.CoreV1().Events(namespace).Get(ctx, names[99], metav1.GetOptions{})
	must(t, err)
	return names
}

func eventsExpire(t *testing.T, ctx context.Context, client kubernetes.Interface, names []string) {
	eventually(t, "all events are gone", func() error {
		events, err := client.CoreV1().Events(namespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		for _, event := range events.Items {
			for _, name := range names {
				if event.Name == name {
					return fmt.Errorf("%s is still there", name)
				}
			}
		}
		return nil
	})
}

// The apiserver compacts by itself; what lies behind is 410 to those who ask for it.
func oldVersionsGo(t *testing.T, ctx context.Context, client kubernetes.Interface, version string) {
	first := list(t, ctx, client, metav1.ListOptions{Limit: 10})
	old := metav1.ListOptions{
		ResourceVersion: version, ResourceVersionMatch: metav1.ResourceVersionMatchExact, Limit: 10,
	}
	eventually(t, "an old revision is 410", func() error {
		_, err := client.CoreV1().ConfigMaps(namespace).List(ctx, old)
		if !apierrors.IsResourceExpired(err) {
			return fmt.Errorf("listing at %s: %v", version, err)
		}
		return nil
	})
	must(t, touch(ctx, client))
	eventually(t, "an old page is 410", func() error {
		must(t, touch(ctx, client))
		_, err := client.CoreV1().ConfigMaps(namespace).List(ctx, metav1.ListOptions{Limit: 10, Continue: first.Continue})
		if !apierrors.IsResourceExpired(err) {
			return fmt.Errorf("the next page: %v", err)
		}
		return nil
	})
}

func touch(ctx context.Context, client kubernetes.Interface) error {
	maps := client.CoreV1().ConfigMaps(namespace)
	return retry.RetryOnConflict(retry.DefaultRetry, func() error {
		object, err := maps.Get(ctx, name(3), metav1.GetOptions{})
		if err != nil {
			return err
		}
		object.Data["touched"] = time.Now().String()
		_, err = maps.Update(ctx, object, metav1.UpdateOptions{})
		return err
	})
}

func killUnderLoad(t *testing.T, ctx context.Context, world *world, client kubernetes.Interface) {
	load := startLoad(ctx, client, 6)
	for range restarts {
		load.flows(t, 200)
		world.etcd.kill(t)
		time.Sleep(time.Second)
		world.etcd.start(t)
		eventually(t, "the apiserver is ready again by itself", func() error { return world.ready(ctx) })
	}
	load.flows(t, 100)
	there := load.finish(t, ctx)
	for at := range objects {
		if _, found := there[name(at)]; !found && at != 2 {
			t.Errorf("%s is lost", name(at))
		}
	}
	t.Logf("%d writes acknowledged over %d kills, all there", load.acknowledged.Load(), restarts)
}

func name(at int) string { return fmt.Sprintf("object-%04d", at) }

func object(name string, value int) *corev1.ConfigMap {
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace, Labels: map[string]string{"made-by": "scenario"}},
		Data:       map[string]string{"value": strconv.Itoa(value)},
	}
}

func list(t *testing.T, ctx context.Context, client kubernetes.Interface, options metav1.ListOptions) *corev1.ConfigMapList {
	t.Helper()
	found, err := client.CoreV1().ConfigMaps(namespace).List(ctx, options)
	must(t, err)
	return found
}

func number(t *testing.T, version string) uint64 {
	t.Helper()
	parsed, err := strconv.ParseUint(version, 10, 64)
	must(t, err)
	return parsed
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func eventually(t *testing.T, what string, try func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not in %v: %s: %v", patience, what, err)
		}
		time.Sleep(200 * time.Millisecond)
	}
}
