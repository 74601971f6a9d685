package proxy

import (
	"context"
	"net/netip"
	"time"
)

// settleTime is how long the network is left alone after a change before it is
// looked at: changes come in bursts.
const settleTime = time.Second

// watchNetwork has all streams begin anew when an address of this machine has
// gone: connections from there are dead, but would look alive for minutes.
func (c *Client) watchNetwork(ctx context.Context) {
	network := orSystem(c.cfg.Network)
	before := c.addresses()
	for range network.Changes(ctx) {
		if !sleep(ctx, settleTime) {
			continue // until the channel is closed
		}
		now := c.addresses()
		lost := false
		for a := range before {
			lost = lost || !now[a]
		}
		before = now
		if lost {
			c.log.Debug("network has changed")
			c.reconnect()
		}
	}
}

// addresses gives the addresses of this machine. It is empty when they cannot be
// told.
func (c *Client) addresses() map[netip.Addr]bool {
	all := make(map[netip.Addr]bool)
	interfaces, err := orSystem(c.cfg.Network).Interfaces()
	if err != nil {
		c.log.Debug("interfaces not known", "err", err)
		return all
	}
	for _, i := range interfaces {
		for _, p := range i.Addrs {
			all[p.Addr()] = true
		}
	}
	return all
}

// reconnect ends all streams, which go on over new connections.
func (c *Client) reconnect() {
	c.mu.Lock()
	c.endEra()
	c.era, c.endEra = context.WithCancel(context.Background())
	c.trouble = true
	c.mu.Unlock()
	c.http.CloseIdleConnections()
	c.wake()
}

// currentEra ends when all streams are to begin anew.
func (c *Client) currentEra() context.Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.era
}
