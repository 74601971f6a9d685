//go:build linux

package interop

import ("fmt"

	"testing"
	"net/netip"

	"github.com/kith-im/kith/dht"
	"github.com/kith-im/kith/dht/wire"
)

func TestZZ(t *testing.T) {
	w := newWorld(t, 7199, "dhtnode")
	net := w.reals(4)
	join := net.Nodes[1].Addr().String()
	kith, _ := w.secure(join)
	other, _ := w.secure(join)
	real := w.cli(addrOf(kith.Table.(*dht.Node)), true)
	feed := w.listen(other, "edit", everything)
	mark, err := real.Listen(w.ctx, "edit")
	w.must(err)
	w.must(kith.PutSigned(w.ctx, keyOf("edit"), &dht.Value{ID: 7, Data: []byte("version-0"), UserType: "text/plain"}))
	feed.value(7, []byte("version-0"))
	_, err = real.WaitValue(w.ctx, mark, "version-0")
	w.must(err)
	w.must(kith.PutSigned(w.ctx, keyOf("edit"), &dht.Value{ID: 7, Data: []byte("version-1"), UserType: "text/plain"}))
	p := w.asker()
	show := func(at netip.AddrPort, name string) {
		for _, v := range p.stored2(at) {
			t.Log(name, v)
		}
	}
	dump := func() {
		for _, n := range net.Nodes { show(n.Addr(), "dhtnode") }
		show(addrOf(kith.Table.(*dht.Node)), "kith")
		show(addrOf(other.Table.(*dht.Node)), "other")
		show(real.Addr(), "real")
	}
	dump()
	vs, err := real.Get(w.ctx, "edit")
	t.Log(vs, err)
	_, m, _ := real.Do(w.ctx, "ld "+keyOf("edit").String(), "Value")
	t.Log(real.Values(m))
	_ = wire.Stored
}

func (p *asker) stored2(at netip.AddrPort) []string {
	m, _ := p.ask(at, wire.Request{Method: wire.Get, Key: keyOf("edit"), Query: wire.Query{Select: []wire.Field{1, 4}, Where: nil}})
	var out []string
	for _, r := range m.Rows { out = append(out, fmt.Sprint(r.ID, " seq ", r.Seq)) }
	return out
}
