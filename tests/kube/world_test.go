package kube

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// world is one or more members as kubeadm starts them, and an apiserver on them.
type world struct {
	dir       string
	url, peer string   // of the only member, where there is one
	etcd      *process // that member
	members   []*process
	apiserver *process
	config    *rest.Config
}

func start(t *testing.T) *world {
	return startOn(t, binary(t, "ETCD_BIN"), "--etcd-compaction-interval=20s")
}

// startOn starts a program as the only member, and an apiserver with these flags.
func startOn(t *testing.T, program string, flags ...string) *world {
	dir := t.TempDir()
	pki := newAuthority(t, dir)
	pki.issue(t, "server")
	pki.issue(t, "client")
	world := &world{
		dir: dir, url: fmt.Sprintf("https://127.0.0.1:%d", freePort(t)), peer: fmt.Sprintf("https://127.0.0.1:%d", freePort(t)),
	}
	world.startMember(t, program, "data")
	t.Cleanup(func() { world.etcd.stop() })
	world.startAPIServer(t, []string{world.url}, flags...)
	return world
}

// startMember starts a program as the only member, on a data directory.
func (world *world) startMember(t *testing.T, program, data string) {
	t.Helper()
	file := func(name string) string { return filepath.Join(world.dir, name) }
	world.etcd = &process{
		name: "etcd", log: file(data + ".log"), program: program, readyLine: "ready to serve client requests",
		args: []string{
			"--name=node", "--feature-gates=InitialCorruptCheck=true",
			"--listen-client-urls=" + world.url, "--advertise-client-urls=" + world.url,
			"--listen-peer-urls=" + world.peer, "--initial-advertise-peer-urls=" + world.peer, "--initial-cluster=node=" + world.peer,
			"--data-dir=" + file(data), "--cert-file=" + file("server.crt"), "--key-file=" + file("server.key"),
			"--trusted-ca-file=" + file("ca.crt"), "--client-cert-auth=true",
			"--peer-cert-file=" + file("server.crt"), "--peer-key-file=" + file("server.key"),
			"--peer-trusted-ca-file=" + file("ca.crt"), "--peer-client-cert-auth=true", "--snapshot-count=10000",
			fmt.Sprintf("--listen-metrics-urls=http://127.0.0.1:%d", freePort(t)), "--watch-progress-notify-interval=5s",
		},
	}
	world.members = []*process{world.etcd}
	world.etcd.start(t)
}

// dial gives a client of the members themselves, to be closed.
func (world *world) dial(t *testing.T, urls []string) *clientv3.Client {
	t.Helper()
	file := func(name string) string { return filepath.Join(world.dir, name) }
	certificate, err := tls.LoadX509KeyPair(file("client.crt"), file("client.key"))
	must(t, err)
	authority, err := os.ReadFile(file("ca.crt"))
	must(t, err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(authority)
	client, err := clientv3.New(clientv3.Config{
		Endpoints: urls, DialTimeout: 5 * time.Second,
		TLS: &tls.Config{Certificates: []tls.Certificate{certificate}, RootCAs: roots},
	})
	must(t, err)
	return client
}

// startAPIServer starts an apiserver on members at these URLs and waits until it is ready.
func (world *world) startAPIServer(t *testing.T, urls []string, flags ...string) {
	file := func(name string) string { return filepath.Join(world.dir, name) }
	secure := freePort(t)
	token := "token-of-the-scenario"
	write(t, file("tokens.csv"), []byte(token+`,admin,1,"system:masters"`+"\n"))
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	must(t, err)
	write(t, file("sa.key"), pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}))
	world.apiserver = &process{
		name: "kube-apiserver", log: file("apiserver.log"), program: binary(t, "APISERVER_BIN"),
		args: append([]string{
			"--etcd-servers=" + strings.Join(urls, ","), "--etcd-cafile=" + file("ca.crt"), "--etcd-certfile=" + file("client.crt"),
			"--etcd-keyfile=" + file("client.key"), "--event-ttl=" + eventTTL.String(),
			// Lists and watches of config maps go to the member itself; everything else goes by way of the cache.
			"--watch-cache-sizes=configmaps#0",
			"--service-account-key-file=" + file("sa.key"), "--service-account-signing-key-file=" + file("sa.key"),
			"--service-account-issuer=https://tests.invalid", "--token-auth-file=" + file("tokens.csv"),
			"--authorization-mode=RBAC", "--service-cluster-ip-range=10.0.0.0/24", "--cert-dir=" + file("apiserver"),
			fmt.Sprintf("--secure-port=%d", secure), "--bind-address=127.0.0.1",
		}, flags...),
	}
	world.apiserver.start(t)
	t.Cleanup(func() { world.apiserver.stop() })
	world.config = &rest.Config{
		Host: fmt.Sprintf("https://127.0.0.1:%d", secure), BearerToken: token, QPS: -1,
		TLSClientConfig: rest.TLSClientConfig{Insecure: true}, Timeout: 0,
	}
	world.awaitAPIServer(t)
}

func (world *world) awaitAPIServer(t *testing.T) {
	t.Helper()
	began := time.Now()
	deadline := began.Add(patience)
	for {
		err := world.ready(context.Background())
		if err == nil {
			break
		}
		if time.Now().After(deadline) || world.apiserver.ended() {
			world.printLogs(t)
			t.Fatal("the apiserver is not ready:", err)
		}
		time.Sleep(200 * time.Millisecond)
	}
	t.Logf("kube-apiserver is ready after %v", time.Since(began).Round(100*time.Millisecond))
}

func (w *world) ready(ctx context.Context) error {
	short, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	client, err := kubernetes.NewForConfig(w.config)
	if err != nil {
		return err
	}
	_, err = client.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(short)
	return err
}

func (w *world) printLogs(t *testing.T) {
	for _, process := range append([]*process{w.apiserver}, w.members...) {
		if process == nil {
			continue
		}
		text, err := os.ReadFile(process.log)
		if err != nil {
			continue
		}
		lines := strings.Split(strings.TrimSpace(string(text)), "\n")
		t.Logf("last lines of %s:\n%s", process.name, strings.Join(lines[max(0, len(lines)-25):], "\n"))
	}
}

// process is a program that writes to a log and ends with the test.
type process struct {
	name, program, log, readyLine string
	args                          []string
	command                       *exec.Cmd
	pid                           atomic.Int64
	done                          chan struct{}
}

func (p *process) start(t *testing.T) {
	t.Helper()
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	must(t, err)
	defer log.Close()
	// By way of setpriv the kernel ends the program when this process is gone.
	p.command = exec.Command("setpriv", append([]string{"--pdeathsig", "KILL", p.program}, p.args...)...)
	p.command.Stdout, p.command.Stderr = log, log
	started := make(chan error)
	p.done = make(chan struct{})
	go func() {
		// The signal comes when the thread that started it ends, so this one is kept.
		runtime.LockOSThread()
		started <- p.command.Start()
		p.command.Wait()
		close(p.done)
	}()
	must(t, <-started)
	p.pid.Store(int64(p.command.Process.Pid))
	if p.readyLine == "" {
		return
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		text, err := os.ReadFile(p.log)
		must(t, err)
		if bytes.Contains(text, []byte(p.readyLine)) {
			return
		}
		if time.Now().After(deadline) || p.ended() {
			t.Fatalf("%s did not start:\n%s", p.name, text)
		}
	}
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

func (p *process) kill(t *testing.T) {
	t.Helper()
	p.signal(t, syscall.SIGKILL)
	<-p.done
}

func (p *process) signal(t *testing.T, signal os.Signal) {
	t.Helper()
	must(t, p.command.Process.Signal(signal))
}

// holds tells whether one of the process's files is this, as /proc names it.
func (p *process) holds(file string) bool {
	folder := fmt.Sprintf("/proc/%d/fd", p.pid.Load())
	entries, err := os.ReadDir(folder)
	if err != nil {
		return false
	}
	for _, entry := range entries {
		if target, err := os.Readlink(filepath.Join(folder, entry.Name())); err == nil && target == file {
			return true
		}
	}
	return false
}

func (p *process) stop() {
	if !p.ended() {
		p.command.Process.Kill()
		<-p.done
	}
}

func binary(t *testing.T, variable string) string {
	t.Helper()
	path := os.Getenv(variable)
	if path == "" {
		t.Skipf("%s is not set", variable)
	}
	return path
}

func freePort(t *testing.T) int {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port
}

func write(t *testing.T, path string, content []byte) {
	t.Helper()
	must(t, os.WriteFile(path, content, 0o600))
}

type authority struct {
	dir    string
	cert   *x509.Certificate
	key    *ecdsa.PrivateKey
	serial int64
}

func newAuthority(t *testing.T, dir string) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "scenario"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	must(t, err)
	cert, err := x509.ParseCertificate(der)
	must(t, err)
	write(t, filepath.Join(dir, "ca.crt"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	return &authority{dir: dir, cert: cert, key: key, serial: 1}
}

func (a *authority) issue(t *testing.T, name string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	a.serial++
	template := &x509.Certificate{
		SerialNumber: big.NewInt(a.serial), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	must(t, err)
	write(t, filepath.Join(a.dir, name+".crt"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	keyDER, err := x509.MarshalECPrivateKey(key)
	must(t, err)
	write(t, filepath.Join(a.dir, name+".key"), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER}))
}
