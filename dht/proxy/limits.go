package proxy

import (
	"net/netip"
	"sync"
	"time"
)

// Limits bound what a [Server] does for its clients. Zero fields have the
// default that is named; a client is an IPv4 address or an IPv6 /64.
type Limits struct {
	Rate            float64       // requests per second and client: 50
	Burst           int           // requests at once of a client: 1000
	Listens         int           // streams at once of all clients: 100,000
	ClientListens   int           // streams at once of a client: 2048
	Leases          int           // permanent values and push subscriptions of all clients: 200,000
	ClientLeases    int           // the same of one client: 4096
	LeaseBytes      int64         // size of all permanent values: 256 MiB
	Values          int           // values in the answer to one get: 65,536
	PutTime         time.Duration // for a value to be taken by the network: 60 s
	GetTime         time.Duration // for a get: 60 s
	ReadTime        time.Duration // for the client to send its request's body: 30 s
	WriteTime       time.Duration // for the client to take a line: 30 s
	RestoreInterval time.Duration // between re-announcements after a start: 20 ms
}

// maxRestoreTime bounds over how long re-announcements are spread after a start.
const maxRestoreTime = 10 * time.Minute

func (l Limits) withDefaults() Limits {
	or(&l.Rate, 50)
	or(&l.Burst, 1000)
	or(&l.Listens, 100_000)
	or(&l.ClientListens, 2048)
	or(&l.Leases, 200_000)
	or(&l.ClientLeases, 4096)
	or(&l.LeaseBytes, 256<<20)
	or(&l.Values, 1<<16)
	or(&l.PutTime, time.Minute)
	or(&l.GetTime, time.Minute)
	or(&l.ReadTime, 30*time.Second)
	or(&l.WriteTime, 30*time.Second)
	or(&l.RestoreInterval, 20*time.Millisecond)
	return l
}

func or[T comparable](field *T, standard T) {
	var zero T
	if *field == zero {
		*field = standard
	}
}

// maxClients bounds the clients that are told apart; those beyond share one
// allowance until others have been quiet.
const maxClients = 1 << 16

// clientOf gives what a client is for limits.
func clientOf(a netip.Addr) netip.Prefix {
	a = a.Unmap().WithZone("")
	bits := 32
	if a.Is6() {
		bits = 64
	}
	p, err := a.Prefix(bits)
	if err != nil {
		return netip.Prefix{} // no address: those share one allowance
	}
	return p
}

// meter counts what each client does.
type meter struct {
	limits Limits

	mu      sync.Mutex // guards all below
	clients map[netip.Prefix]*usage
	listens int
	swept   time.Time
}

type usage struct {
	tokens  float64
	updated time.Time
	listens int
}

// request counts a request and tells whether it is allowed.
func (m *meter) request(client netip.Prefix, now time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	u := m.usage(client, now)
	if u.tokens < 1 {
		return false
	}
	u.tokens--
	return true
}

// listen counts the start of a stream; done must be called at its end.
func (m *meter) listen(client netip.Prefix, now time.Time) (done func(), ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	u := m.usage(client, now)
	if u.listens >= m.limits.ClientListens || m.listens >= m.limits.Listens {
		return nil, false
	}
	u.listens++
	m.listens++
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		u.listens--
		m.listens--
	}, true
}

// streams tells how many streams there are.
func (m *meter) streams() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.listens
}

func (m *meter) usage(client netip.Prefix, now time.Time) *usage {
	u := m.clients[client]
	if u == nil {
		if len(m.clients) >= maxClients && now.Sub(m.swept) >= time.Second {
			m.swept = now
			m.sweep(now)
		}
		if len(m.clients) >= maxClients {
			client = netip.Prefix{}
			if u = m.clients[client]; u != nil {
				return m.refill(u, now)
			}
		}
		u = &usage{tokens: float64(m.limits.Burst), updated: now}
		if m.clients == nil {
			m.clients = make(map[netip.Prefix]*usage)
		}
		m.clients[client] = u
	}
	return m.refill(u, now)
}

func (m *meter) refill(u *usage, now time.Time) *usage {
	u.tokens = min(float64(m.limits.Burst), u.tokens+now.Sub(u.updated).Seconds()*m.limits.Rate)
	u.updated = now
	return u
}

// sweep forgets the clients that have all of their allowance.
func (m *meter) sweep(now time.Time) {
	for client, u := range m.clients {
		if u.listens == 0 && m.refill(u, now).tokens >= float64(m.limits.Burst) {
			delete(m.clients, client)
		}
	}
}
