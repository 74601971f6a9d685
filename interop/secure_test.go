//go:build linux

package interop

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/kith-im/kith/dht"
	"github.com/kith-im/kith/identity"
	"github.com/kith-im/kith/interop/lab"
)

// secure makes a node of ours that signs and decrypts.
func (w *world) secure(bootstrap string) (*dht.Secure, *identity.Identity) {
	w.Helper()
	id := w.newIdentity()
	return dht.NewSecure(w.kith(dht.Config{Bootstrap: []string{bootstrap}, Identity: id}), id), id
}

func TestSignedAndEncrypted(t *testing.T) {
	t.Parallel()
	t.Run("at dhtnodes", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, 7121, "dhtnode", "python3-opendht")
		testSecure(w, w.reals(3).Nodes[1].Addr().String())
	})
	t.Run("at Kith nodes", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, 7122, "dhtnode", "python3-opendht")
		testSecure(w, addrOf(w.kiths(3)[1]).String())
	})
}

func testSecure(w *world, join string) {
	kith, id := w.secure(join)
	other, _ := w.secure(join)
	real := w.cli(addrOf(kith.Table.(*dht.Node)), true)
	realKey, err := identity.ParseKeyID(real.KeyID)
	w.must(err)

	w.sub("signed by Kith", func(w *world) {
		w.must(kith.PutSigned(w.ctx, keyOf("ks"), &dht.Value{ID: 5, Data: []byte("by-kith"), UserType: "text/plain"}))
		vs, err := real.Get(w.ctx, "ks")
		if err != nil || len(vs) != 1 || vs[0].ID != 5 || !vs[0].Signed || vs[0].Data != "by-kith" {
			w.Errorf("dhtnode got %+v, %v", vs, err)
		}
	})
	w.sub("signed by dhtnode", func(w *world) {
		w.must(real.PutSigned(w.ctx, "rs", "by-dhtnode"))
		got := w.get(kith, "rs", everything)
		if len(got) != 1 || !got[0].Signed() || got[0].VerifySignature() != nil || got[0].OwnerID() != realKey ||
			!strings.Contains(string(got[0].Data), "by-dhtnode") {
			w.Errorf("Kith got %q", quote(got))
		}
	})
	w.sub("encrypted by dhtnode", func(w *world) {
		// It looks our certificate up under the short id.
		pubs, err := kith.PublishCertificate(w.ctx)
		w.must(err)
		w.must(real.PutEncrypted(w.ctx, "re", kith.KeyID().String(), "for-kith"))
		got := w.get(kith, "re", everything)
		if len(got) != 1 || !strings.Contains(string(got[0].Data), "for-kith") || got[0].OwnerID() != realKey {
			w.Errorf("Kith got %q", quote(got))
		}
		if got := w.get(other, "re", everything); len(got) != 0 {
			w.Errorf("somebody else reads %q", quote(got))
		}
		for _, p := range pubs {
			p.Cancel()
		}
	})
	w.sub("encrypted by Kith", func(w *world) {
		pub, err := kith.FindKey(w.ctx, realKey)
		w.must(err)
		if pub.ID() != realKey {
			w.Fatalf("found the key %v", pub)
		}
		w.must(kith.PutEncrypted(w.ctx, keyOf("ke"), pub, &dht.Value{Data: []byte("for-dhtnode"), UserType: "text/plain"}))
		vs, err := real.Get(w.ctx, "ke")
		if err != nil || len(vs) != 1 || vs[0].Data != "for-dhtnode" {
			w.Errorf("dhtnode got %+v, %v", vs, err)
		}
	})
	w.sub("both keys of our certificate", func(w *world) {
		pubs, err := kith.PublishCertificate(w.ctx)
		w.must(err)
		w.Logf("published under %d keys", len(pubs))
		byShort, err := other.FindCertificate(w.ctx, id.Key.Public().ID())
		if err != nil || !byShort.Equal(id.Cert) {
			w.Errorf("by the short id: %v, %v", byShort, err)
		}
		if len(pubs) == 2 { // 2.4 refuses the second: it is for Kith nodes and newer peers
			byLong, err := other.FindCertificateLong(w.ctx, id.Key.Public().LongID())
			if err != nil || !byLong.Equal(id.Cert) {
				w.Errorf("by the long id: %v, %v", byLong, err)
			}
		}
	})
	w.sub("edits", func(w *world) { testEdits(w, kith, other, id, real, join) })
}

// testEdits has a signed value replaced by its next version before the eyes of
// both kinds.
func testEdits(w *world, kith, other *dht.Secure, id *identity.Identity, real *lab.DhtnodeCLI, join string) {
	feed := w.listen(other, "edit", everything)
	mark, err := real.Listen(w.ctx, "edit")
	w.must(err)
	v := &dht.Value{ID: 7, Data: []byte("version-0"), UserType: "text/plain"}
	w.must(kith.PutSigned(w.ctx, keyOf("edit"), v))
	first := v.Seq
	feed.value(7, []byte("version-0"))
	_, err = real.WaitValue(w.ctx, mark, "version-0")
	w.must(err)

	next := &dht.Value{ID: 7, Data: []byte("version-1"), UserType: "text/plain"}
	w.must(kith.PutSigned(w.ctx, keyOf("edit"), next))
	if next.Seq != first+1 {
		w.Errorf("the versions are %d and %d", first, next.Seq)
	}
	feed.value(7, []byte("version-1"))
	_, err = real.WaitValue(w.ctx, mark, "version-1")
	w.must(err)
	// What the dhtnode that listens gets may be from its memory of both versions.
	if got := w.pyGet(w.py(real.Addr()), "edit"); len(got) != 1 || string(got[0].Data) != "version-1" {
		w.Errorf("a client gets %+v", got)
	}

	// A new device of the same owner goes on where the network is.
	again := dht.NewSecure(w.kith(dht.Config{Bootstrap: []string{join}}), id)
	third := &dht.Value{ID: 7, Data: []byte("version-2"), UserType: "text/plain"}
	w.must(again.PutSigned(w.ctx, keyOf("edit"), third))
	if third.Seq != first+2 {
		w.Errorf("a second device made version %d", third.Seq)
	}
	_, err = real.WaitValue(w.ctx, mark, "version-2")
	w.must(err)

	// Older versions and other owners' are refused by all; there are not more nodes
	// than copies.
	if err := kith.Put(w.ctx, keyOf("edit"), next); !errors.Is(err, dht.ErrRefused) {
		w.Errorf("an older version: %v, want a refusal", err)
	}
	forged := &dht.Value{ID: 7, Data: []byte("forged")}
	if err := other.PutSigned(w.ctx, keyOf("edit"), forged); !errors.Is(err, dht.ErrRefused) {
		w.Errorf("another owner's: %v, want a refusal", err)
	}
	reader := w.kith(dht.Config{Bootstrap: []string{join}, ReadOnly: true})
	for _, v := range w.get(reader, "edit", whereID(7)) {
		if !bytes.Equal(v.Data, third.Data) {
			w.Errorf("the network still, or again, has %q", v.Data)
		}
	}
}
