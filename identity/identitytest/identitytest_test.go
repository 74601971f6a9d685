package identitytest

import (
	"flag"
	"fmt"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kith-im/kith/identity"
)

var update = flag.Bool("update", false, "replace the pool by newly generated identities")

func TestUpdate(t *testing.T) {
	if !*update {
		t.Skip("only with -update")
	}
	for i := range Len {
		id, err := identity.New(fmt.Sprintf("Throwaway %d", i), identity.Options{
			Bits:     2048,
			Now:      time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC),
			Lifetime: 100 * 365 * 24 * time.Hour,
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := id.Save(filepath.Join("testdata", fmt.Sprintf("throwaway%d", i))); err != nil {
			t.Fatal(err)
		}
	}
}

func TestPool(t *testing.T) {
	seen := make(map[identity.KeyID]int)
	for i := range Len {
		k, id := Key(i), Identity(i)
		if !id.Key.Equal(k) || !id.Cert.SameKey(k.Public()) {
			t.Errorf("identity %d does not belong to key %d", i, i)
		}
		if other, ok := seen[id.Cert.KeyID()]; ok {
			t.Errorf("%d and %d are the same", i, other)
		}
		seen[id.Cert.KeyID()] = i
		if k.Public().Bits() != 2048 {
			t.Errorf("key %d has %d bits", i, k.Public().Bits())
		}
		if err := identity.VerifyChain(id.Cert, time.Now()); err != nil {
			t.Errorf("identity %d: %v", i, err)
		}
	}
}

func TestValidInBubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		if err := identity.VerifyChain(Identity(0).Cert, time.Now()); err != nil {
			t.Error(err)
		}
	})
}

func TestOutOfRange(t *testing.T) {
	for _, i := range []int{-1, Len} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("identity %d exists", i)
				}
			}()
			Identity(i)
		}()
	}
}
