package kube

import (
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
)

// network is a TCP proxy in front of each member's peer port, so that members can be cut off without root.
// Who dialled a connection is what /proc tells of the process at its other end.
type network struct {
	mutex   sync.Mutex
	changed *sync.Cond
	alone   int // the member that is cut off, or -1
	members []*process
}

func newNetwork() *network {
	n := &network{alone: -1}
	n.changed = sync.NewCond(&n.mutex)
	return n
}

// isolate holds everything between a member and the others, until it is given -1.
func (n *network) isolate(member int) {
	n.mutex.Lock()
	defer n.mutex.Unlock()
	n.alone = member
	n.changed.Broadcast()
}

// wait returns when bytes may go between two members.
func (n *network) wait(from, to int) {
	n.mutex.Lock()
	defer n.mutex.Unlock()
	for from != to && (n.alone == from || n.alone == to) {
		n.changed.Wait()
	}
}

// proxy listens for the peers of a member and gives the port.
func (n *network) proxy(t *testing.T, to, port int) int {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			inbound, err := listener.Accept()
			if err != nil {
				return
			}
			go n.carry(inbound, to, port)
		}
	}()
	return listener.Addr().(*net.TCPAddr).Port
}

func (n *network) carry(inbound net.Conn, to, port int) {
	defer inbound.Close()
	from := n.dialler(inbound.RemoteAddr().(*net.TCPAddr).Port, to)
	n.wait(from, to)
	outbound, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return
	}
	defer outbound.Close()
	ended := make(chan struct{}, 2)
	for _, way := range [][2]net.Conn{{inbound, outbound}, {outbound, inbound}} {
		go func() {
			buffer := make([]byte, 64<<10)
			for {
				length, err := way[0].Read(buffer)
				n.wait(from, to)
				if length > 0 {
					if _, err := way[1].Write(buffer[:length]); err != nil {
						break
					}
				}
				if err == io.EOF || err != nil {
					break
				}
			}
			ended <- struct{}{}
		}()
	}
	<-ended
}

// dialler is the member whose process holds the socket that is bound to a port; no member counts as `to` itself.
func (n *network) dialler(port, to int) int {
	table, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		return to
	}
	local := fmt.Sprintf("0100007F:%04X", port)
	for _, line := range strings.Split(string(table), "\n") {
		fields := strings.Fields(line)
		if len(fields) < 10 || fields[1] != local {
			continue
		}
		socket := "socket:[" + fields[9] + "]"
		for at, member := range n.members {
			if member.holds(socket) {
				return at
			}
		}
	}
	return to
}
