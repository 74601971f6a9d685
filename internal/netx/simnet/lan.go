package simnet

import (
	"fmt"
	"net/netip"
	"slices"
)

// LAN is a network among whose hosts multicast works: the inside of a [NAT], or
// one made by [World.NewLAN].
type LAN struct {
	world     *World
	realm     *realm
	link      Link
	multicast bool
	hosts     []*Host
}

// realm is a space of addresses: the internet, or the inside of a NAT.
type realm struct {
	owners map[netip.Addr]owner
	uplink *NAT // nil for the internet
}

// owner is what an address of a realm leads to: a host, or the outside of a NAT.
type owner struct {
	host *Host
	nat  *NAT
}

// SetLink sets the path between two hosts of the network; the zero Link is the default.
func (l *LAN) SetLink(link Link) {
	l.world.mu.Lock()
	defer l.world.mu.Unlock()
	l.link = link
}

// NewHost puts a host into the network. It is up. Its first address of each
// family is the one that it sends from.
func (l *LAN) NewHost(name string, addrs ...netip.Addr) *Host {
	w := l.world
	w.mu.Lock()
	defer w.mu.Unlock()
	h := newHost(w, len(w.hosts), name, l)
	w.hosts = append(w.hosts, h)
	l.hosts = append(l.hosts, h)
	h.setAddrs(addrs)
	return h
}

// NewNAT puts a NAT into the network, with these addresses in it. It translates
// the families of these addresses; packets of the other family pass unchanged, so
// that hosts behind a NAT for IPv4 can have public IPv6 addresses.
func (l *LAN) NewNAT(kind NATKind, outer ...netip.Addr) *NAT {
	w := l.world
	w.mu.Lock()
	defer w.mu.Unlock()
	n := newNAT(w, kind, l.realm, outer)
	for _, a := range outer {
		l.realm.claim(a, owner{nat: n})
	}
	return n
}

func (r *realm) claim(a netip.Addr, o owner) {
	if !a.IsValid() || a.Is4In6() || a.IsLoopback() || a.IsMulticast() || a.IsUnspecified() || a.Zone() != "" {
		panic(fmt.Sprintf("simnet: %v is no address for a host", a))
	}
	if old, ok := r.owners[a]; ok && old != o {
		panic(fmt.Sprintf("simnet: address %v is taken", a))
	}
	r.owners[a] = o
}

// realms gives the realms in which an address of a host in r is known: r, and
// those outside as long as the NATs between do not translate it.
func (r *realm) realms(a netip.Addr) []*realm {
	out := []*realm{r}
	public := a.Is6() && a.IsGlobalUnicast() && !a.IsPrivate()
	for public && r.uplink != nil && !r.uplink.translates(a) {
		r = r.uplink.outside
		out = append(out, r)
	}
	return out
}

func (h *Host) setAddrs(addrs []netip.Addr) {
	for _, a := range h.addrs {
		for _, r := range h.lan.realm.realms(a) {
			delete(r.owners, a)
		}
	}
	h.addrs = slices.Clone(addrs)
	for _, a := range h.addrs {
		for _, r := range h.lan.realm.realms(a) {
			r.claim(a, owner{host: h})
		}
	}
}

// maxNesting bounds how many NATs a packet passes in each direction.
const maxNesting = 8

// leave takes a packet outwards to the realm where its destination is known,
// through the NATs on the way.
func (w *World) leave(p *packet) (Cause, bool) {
	for range maxNesting {
		if _, ok := p.realm.owners[p.dst.Addr()]; ok {
			return 0, true
		}
		n := p.realm.uplink
		if n == nil {
			return DropNoRoute, false
		}
		if slices.Contains(n.outer, p.dst.Addr()) && !n.hairpin {
			return DropNAT, false
		}
		if n.translates(p.dst.Addr()) {
			src, ok := n.table(p.proto, p.dst.Addr()).out(w.now(), p.src, p.dst)
			if !ok {
				return DropNAT, false
			}
			p.src = src
		}
		p.realm = n.outside
	}
	return DropNoRoute, false
}

// enter takes a packet inwards to a host, through the NATs on the way.
func (w *World) enter(p *packet) (*Host, Cause) {
	for range maxNesting {
		o := p.realm.owners[p.dst.Addr()]
		if o.host != nil {
			return o.host, 0
		}
		if o.nat == nil {
			return nil, DropNoRoute
		}
		dst, ok := o.nat.table(p.proto, p.dst.Addr()).in(w.now(), p.src, p.dst)
		if !ok {
			return nil, DropNAT
		}
		p.dst, p.realm = dst, o.nat.realm
	}
	return nil, DropNoRoute
}

// target guesses who will get a packet that is on its way in; nil if nobody.
func (w *World) target(p *packet) *Host {
	dst, r := p.dst, p.realm
	for range maxNesting {
		o := r.owners[dst.Addr()]
		if o.nat == nil {
			return o.host
		}
		m := o.nat.table(p.proto, dst.Addr()).byPort[dst.Port()]
		if m == nil {
			return nil
		}
		dst, r = m.inner, o.nat.realm
	}
	return nil
}
