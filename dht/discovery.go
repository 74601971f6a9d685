package dht

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/kith-im/kith/dht/kad"
	"github.com/kith-im/kith/dht/wire"
	"github.com/kith-im/kith/internal/msgpack"
	"github.com/kith-im/kith/internal/netx"
)

// Local discovery, as OpenDHT does it: a node asks the multicast group "q", and
// nodes there answer with a map of services; ours is "dht", an array of node id,
// UDP port and network id. See docs/protocol/opendht.md.
var discoveryGroups = [...]netip.AddrPort{
	netip.AddrPortFrom(netip.AddrFrom4([4]byte{239, 192, 0, 1}), 8888),
	netip.AddrPortFrom(netip.MustParseAddr("ff08::101"), 8888),
}

const (
	discoveryService = "dht"
	discoveryFirst   = 10 * time.Second
	discoveryMax     = time.Minute
	discoveryAnswers = 20 // a second, at most
)

// discover finds nodes in the local network, and lets them find us.
func (n *Node) discover(ctx context.Context, g *errgroup.Group) {
	for _, group := range discoveryGroups {
		s := n.v4
		if group.Addr().Is6() {
			s = n.v6
		}
		if s == nil {
			continue
		}
		conn, err := n.cfg.Network.ListenMulticast(ctx, group)
		if err != nil {
			n.cfg.Log.Warn("no local discovery", "group", group, "error", err)
			continue
		}
		g.Go(func() error {
			<-n.closed
			return conn.Close()
		})
		g.Go(func() error { return n.answerDiscovery(conn, s.addr.Port()) })
		g.Go(func() error { return n.askDiscovery(ctx, conn, group, s.addr.Port()) })
	}
}

// askDiscovery announces us once, and asks for others while we are alone.
func (n *Node) askDiscovery(ctx context.Context, conn netx.PacketConn, group netip.AddrPort, port uint16) error {
	hello := n.announcement(port)
	conn.WriteBatch([]netx.Datagram{{Buf: hello, N: len(hello), Addr: group}})
	query := msgpack.AppendString(nil, "q")
	wait := time.Duration(0)
	for {
		info, err := n.Info(ctx)
		if err != nil {
			return nil
		}
		if info.Status != Connected {
			conn.WriteBatch([]netx.Datagram{{Buf: query, N: len(query), Addr: group}})
			wait = min(wait+discoveryFirst, discoveryMax)
		} else {
			wait = discoveryFirst
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil
		}
	}
}

// answerDiscovery tells askers where we are and takes in what others tell.
func (n *Node) answerDiscovery(conn netx.PacketConn, port uint16) error {
	in := []netx.Datagram{{Buf: make([]byte, 2048)}}
	hello := n.announcement(port)
	answers, second, failures := 0, time.Now(), 0
	for {
		if _, err := conn.ReadBatch(in); err != nil {
			if errors.Is(err, net.ErrClosed) || n.isClosed() {
				return nil
			}
			failures++
			n.pause(failures)
			continue
		}
		failures = 0
		p := in[0]
		if now := time.Now(); now.Sub(second) >= time.Second {
			answers, second = 0, now
		}
		if !n.onLink(p.Addr.Addr()) {
			continue // the socket hears the whole internet
		}
		if answers++; answers > discoveryAnswers {
			continue
		}
		if isQuery(p.Buf[:p.N]) {
			conn.WriteBatch([]netx.Datagram{{Buf: hello, N: len(hello), Addr: p.Addr}})
			continue
		}
		id, port, network, ok := parseAnnouncement(p.Buf[:p.N])
		if !ok || id == n.cfg.ID || network != n.cfg.NetworkID {
			continue
		}
		node := wire.Node{ID: id, Addr: netip.AddrPortFrom(p.Addr.Addr(), port)}
		n.do(func(now time.Time, out *kad.Outbox) { n.core.Insert(now, []wire.Node{node}, out) })
	}
}

// onLink tells whether an address may be in a network that we are in. A host without
// any address of its own speaks as the unspecified one.
func (n *Node) onLink(a netip.Addr) bool {
	if a.IsPrivate() || a.IsLinkLocalUnicast() || a.IsLoopback() || a.IsUnspecified() {
		return true
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.ContainsFunc(n.links, func(p netip.Prefix) bool { return p.Contains(a.WithZone("")) })
}

func (n *Node) announcement(port uint16) []byte {
	b := msgpack.AppendString(msgpack.AppendMap(nil, 1), discoveryService)
	b = msgpack.AppendBin(msgpack.AppendArray(b, 3), n.cfg.ID[:])
	b = msgpack.AppendUint(b, uint64(port))
	return msgpack.AppendUint(b, uint64(n.cfg.NetworkID))
}

func isQuery(b []byte) bool {
	r := msgpack.NewReader(b)
	s, err := r.Str()
	return err == nil && string(s) == "q"
}

// parseAnnouncement reads the "dht" entry of an announcement; other services are
// others' business.
func parseAnnouncement(b []byte) (id NodeID, port uint16, network uint32, ok bool) {
	r := msgpack.NewReader(b)
	pairs, err := r.Map()
	for i := 0; err == nil && i < pairs; i++ {
		var key []byte
		if key, err = r.Bytes(); err != nil {
			break
		}
		if string(key) != discoveryService {
			err = r.Skip()
			continue
		}
		if count, err := r.Array(); err != nil || count < 3 {
			return id, 0, 0, false
		}
		raw, err1 := r.Bin()
		p, err2 := r.Uint()
		nw, err3 := r.Uint()
		if err1 != nil || err2 != nil || err3 != nil || len(raw) != len(id) || p == 0 || p > 65535 || nw > 1<<32-1 {
			return id, 0, 0, false
		}
		return NodeID(raw), uint16(p), uint32(nw), true
	}
	return id, 0, 0, false
}
