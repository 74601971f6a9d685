package kad

import (
	"net/netip"
	"time"

	"github.com/kith-im/kith/dht/wire"
)

const (
	listenLife       = 10 * time.Minute // after the last renewal
	maxKeyListeners  = 1 << 13
	maxAddrListeners = 16 // of one address for one key
	maxFailedPushes  = 2  // in a row, after which a listener goes
	listenerExamined = 8  // when there are too many: the heaviest source among so many goes
)

// A listener is another node that wants to hear of the values of a key.
type listener struct {
	key    wire.Key
	addr   netip.AddrPort
	socket uint32
	legacy bool
	missed bool // it did not confirm what was pushed
	failed int  // pushes in a row that it did not confirm
	gone   bool // it is not in the lists any more
	query  wire.Query
	until  time.Time
	pos    int // in listeners.all
}

// listeners are all of those who listen to us.
type listeners struct {
	all      []*listener
	bySource map[netip.Addr]int
}

func (ls *listeners) add(l *listener) {
	l.pos = len(ls.all)
	ls.all = append(ls.all, l)
	if ls.bySource == nil {
		ls.bySource = make(map[netip.Addr]int)
	}
	ls.bySource[source(l.addr.Addr())]++
}

func (ls *listeners) remove(l *listener) {
	last := len(ls.all) - 1
	ls.all[l.pos] = ls.all[last]
	ls.all[l.pos].pos = l.pos
	ls.all[last] = nil
	ls.all = ls.all[:last]
	src := source(l.addr.Addr())
	if ls.bySource[src]--; ls.bySource[src] == 0 {
		delete(ls.bySource, src)
	}
}

// unlisten forgets a listener.
func (c *Core) unlisten(l *listener) {
	l.gone = true
	c.watch.remove(l)
	sh := c.store.shelves[l.key]
	for i, other := range sh.listeners {
		if other == l {
			last := len(sh.listeners) - 1
			sh.listeners[i] = sh.listeners[last]
			sh.listeners[last] = nil
			sh.listeners = sh.listeners[:last]
			break
		}
	}
	c.store.tidy(l.key, sh)
}

// sweepListeners forgets those who did not renew.
func (c *Core) sweepListeners() {
	for i := len(c.watch.all) - 1; i >= 0; i-- {
		if l := c.watch.all[i]; !l.until.After(c.now) {
			c.unlisten(l)
		}
	}
}

func (c *Core) handleListen(from netip.AddrPort, m *wire.Message) {
	sh := c.store.shelf(m.Key)
	var l *listener
	var same *listener // the oldest of that address
	count := 0
	for _, have := range sh.listeners {
		if have.addr != from {
			continue
		}
		count++
		if have.socket == m.Socket {
			l = have
		}
		if same == nil || have.until.Before(same.until) {
			same = have
		}
	}
	isNew := l == nil
	if isNew {
		switch {
		case count >= maxAddrListeners:
			c.unlisten(same)
			sh = c.store.shelf(m.Key)
		case len(sh.listeners) >= maxKeyListeners:
			c.unlisten(heaviest(sh.listeners))
			sh = c.store.shelf(m.Key)
		}
		if len(c.watch.all) >= c.cfg.Limits.Listeners {
			c.crowdOut()
			sh = c.store.shelf(m.Key)
		}
		l = &listener{key: m.Key, addr: from, socket: m.Socket}
		sh.listeners = append(sh.listeners, l)
		c.watch.add(l)
	}
	l.legacy = m.Version == 0
	l.query, l.until = m.Query, c.now.Add(listenLife)
	if isNew || l.missed {
		l.missed = false
		// The reference tells what there is before it confirms.
		if values := c.matching(m.Key, m.Query); len(values) > 0 {
			c.pushTo(l, values)
		}
	}
	tok := c.tokens.issue(c.now, from)
	c.reply(from, m.TID, &wire.Answer{Token: tok[:]}, 0)
}

// heaviest returns the listener that was renewed longest ago, of the source that has
// most of the list.
func heaviest(list []*listener) *listener {
	count := make(map[netip.Addr]int)
	for _, l := range list {
		count[source(l.addr.Addr())]++
	}
	worst := list[0]
	for _, l := range list[1:] {
		a, b := count[source(l.addr.Addr())], count[source(worst.addr.Addr())]
		if a > b || a == b && l.until.Before(worst.until) {
			worst = l
		}
	}
	return worst
}

// crowdOut makes room for one listener at the expense of whoever has many.
func (c *Core) crowdOut() {
	var worst *listener
	most := 0
	for range listenerExamined {
		l := c.watch.all[c.rand.IntN(len(c.watch.all))]
		if n := c.watch.bySource[source(l.addr.Addr())]; n > most {
			worst, most = l, n
		}
	}
	c.unlisten(worst)
}

// pushValue tells listeners of a value that is new or changed.
func (c *Core) pushValue(key wire.Key, sh *shelf, s *stored) {
	for _, l := range sh.listeners {
		if l.until.After(c.now) && l.query.MatchesOwned(s.Value, s.owner) {
			c.pushTo(l, []wire.Packed{s.Packed})
		}
	}
	c.tellLocal(key, s.Value, false)
}

// pushTo sends values to a listener.
func (c *Core) pushTo(l *listener, values []wire.Packed) {
	f := c.familyOf(l.addr.Addr())
	if f == nil {
		return
	}
	tok := c.tokens.issue(c.now, l.addr)
	if l.legacy {
		c.reply(l.addr, l.socket, &wire.Answer{Token: tok[:], Values: values}, 0)
		if !wire.Inline(values) {
			c.sendParts(l.addr, l.socket, values)
		}
		return
	}
	c.push(f, l, wire.Request{Method: wire.Update, Key: l.key, Socket: l.socket, Values: values, Token: tok[:]})
}

// pushNotice tells listeners that a value was refreshed, or is gone.
func (c *Core) pushNotice(sh *shelf, s *stored, gone bool) {
	ids := []wire.ValueID{s.Value.ID}
	for _, l := range sh.listeners {
		f := c.familyOf(l.addr.Addr())
		if f == nil || !l.until.After(c.now) || !l.query.MatchesOwned(s.Value, s.owner) {
			continue
		}
		tok := c.tokens.issue(c.now, l.addr)
		body := wire.Request{Method: wire.Update, Key: l.key, Socket: l.socket, Token: tok[:]}
		if gone {
			body.Expired = ids
		} else {
			body.Renewed = ids
		}
		if l.legacy {
			c.send(l.addr, c.env.AppendNotice(c.out.buf, l.socket, tok[:], body.Renewed, body.Expired))
			continue
		}
		c.push(f, l, body)
	}
}

// push sends an update and asks again when the listener is silent.
func (c *Core) push(f *family, l *listener, body wire.Request) {
	c.askAddr(f, l.addr, body, pushed{c, l})
}

// pushed is the owner of updates.
type pushed struct {
	c *Core
	l *listener
}

func (p pushed) replied(*request, *wire.Message) { p.l.failed = 0 }
func (p pushed) late(*request)                   {}

// failed shortens the life of a listener that does not answer: its next renewal
// comes soon when it lives, and brings it what it missed. The second time it goes.
func (p pushed) failed(*request, int) {
	p.l.missed = true
	if soon := p.c.now.Add(listenLife / 2); p.l.until.After(soon) {
		p.l.until = soon
	}
	if p.l.failed++; p.l.failed >= maxFailedPushes && !p.l.gone {
		p.c.unlisten(p.l)
	}
}

// valueGone is called by the storage for each value that leaves it.
func (c *Core) valueGone(sh *shelf, s *stored) {
	c.pushNotice(sh, s, true)
	c.tellLocal(s.key, s.Value, true)
}
