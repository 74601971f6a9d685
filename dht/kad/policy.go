package kad

import (
	"encoding/binary"
	"net/netip"
	"time"

	"github.com/kith-im/kith/dht/wire"
	"github.com/kith-im/kith/identity"
	"github.com/kith-im/kith/internal/msgpack"
)

// A policy is what the type of a value decides.
type policy struct {
	life time.Duration
	// signedOwn: a value with owner and signature is judged by these alone.
	signedOwn bool
	// check judges a value that is new under key; nil allows it. It may return a
	// changed value to be stored instead.
	check func(key wire.Key, v *wire.Value, from netip.AddrPort) (*wire.Value, bool)
	// edit judges the replacement of old by v, when both are unsigned; nil forbids.
	edit func(old, v *wire.Value) bool
}

// Lifetimes of values by type.
const (
	defaultLife      = 10 * time.Minute
	messageLife      = 5 * time.Minute
	serviceLife      = 15 * time.Minute
	iceLife          = time.Minute
	trustRequestLife = 7 * 24 * time.Hour
	certificateLife  = 7 * 24 * time.Hour
)

// policyOf returns the rules of a type. Types nobody told us of live as user data
// and are stored as they are: readers check signatures themselves.
func policyOf(t wire.TypeID) policy {
	switch t {
	case wire.TypeUserData:
		return policy{life: defaultLife, signedOwn: true}
	case wire.TypeMessage:
		return policy{life: messageLife, signedOwn: true, check: checkMessage}
	case wire.TypeService:
		return policy{life: serviceLife, check: checkService}
	case wire.TypeIM:
		return policy{life: messageLife, signedOwn: true}
	case wire.TypeTrustRequest:
		return policy{life: trustRequestLife, signedOwn: true}
	case wire.TypeICE:
		return policy{life: iceLife, signedOwn: true}
	case wire.TypeCertificate:
		return policy{life: certificateLife, check: checkCertificate, edit: sameCertificateKey}
	}
	return policy{life: defaultLife}
}

// Life returns how long a value of type t lives after it was stored or refreshed.
func Life(t wire.TypeID) time.Duration { return policyOf(t).life }

// checkMessage wants the service of a message to be named.
func checkMessage(_ wire.Key, v *wire.Value, _ netip.AddrPort) (*wire.Value, bool) {
	r := msgpack.NewReader(v.Data)
	if n, err := r.Array(); err != nil || n < 1 {
		return v, true // not a message that we can read: its reader judges it
	}
	service, err := r.Str()
	return v, err != nil || len(service) > 0
}

// checkService puts the sender's address in the place of the announced one and
// keeps the port, so that nobody announces somebody else's host.
func checkService(_ wire.Key, v *wire.Value, from netip.AddrPort) (*wire.Value, bool) {
	port, ok := servicePort(v.Data)
	if !ok || port == 0 {
		return nil, false
	}
	if !from.Addr().IsValid() {
		return v, true // our own
	}
	c := v.Clone()
	c.Data = msgpack.AppendBin(nil, AppendSockaddr(nil, netip.AddrPortFrom(from.Addr(), port)))
	return c, true
}

func servicePort(data []byte) (uint16, bool) {
	r := msgpack.NewReader(data)
	b, err := r.Bin()
	if err != nil {
		return 0, false
	}
	a, ok := ParseSockaddr(b)
	return a.Port(), ok
}

// checkCertificate wants the certificate under one of the two keys that belong to
// its public key: peers before OpenDHT 3.5 use the first, later ones the second.
func checkCertificate(key wire.Key, v *wire.Value, _ netip.AddrPort) (*wire.Value, bool) {
	pub, err := certificateKey(v)
	if err != nil {
		return nil, false
	}
	short, long := identity.CertificateKeys(pub)
	return v, key == short || key == long
}

func certificateKey(v *wire.Value) (*identity.PublicKey, error) {
	data := v.Data
	r := msgpack.NewReader(data)
	if b, err := r.Bin(); err == nil && r.Len() == 0 {
		data = b
	}
	cert, err := identity.ParseChain(data)
	if err != nil {
		return nil, err
	}
	return cert.PublicKey(), nil
}

func sameCertificateKey(old, v *wire.Value) bool {
	a, err := certificateKey(old)
	if err != nil {
		return false
	}
	b, err := certificateKey(v)
	return err == nil && a.Equal(b)
}

// admit judges a value that is new under its key and id, sent by from.
func admit(key wire.Key, v *wire.Value, from netip.AddrPort, signatureOK func() bool) (*wire.Value, bool) {
	p := policyOf(v.Type)
	if v.Encrypted() {
		return v, true
	}
	if p.signedOwn && v.Signed() {
		return v, signatureOK()
	}
	if p.check == nil {
		return v, true
	}
	return p.check(key, v, from)
}

// replaces judges whether v may take the place of old, which has the same key and
// id and other content. Where an owner signed, only the same owner's newer and
// signed version may.
func replaces(old, v *wire.Value, signatureOK func() bool) bool {
	if old.Encrypted() || v.Encrypted() || old.Type != v.Type {
		return false
	}
	p := policyOf(old.Type)
	if old.Signed() && p.signedOwn {
		return v.Signed() && old.OwnerID() == v.OwnerID() && string(old.Owner) == string(v.Owner) &&
			v.Seq > old.Seq && signatureOK()
	}
	return p.edit != nil && p.edit(old, v)
}

// AppendSockaddr appends an address as Linux keeps it in memory on little-endian
// machines, the form that OpenDHT puts into service values and state files.
func AppendSockaddr(b []byte, a netip.AddrPort) []byte {
	if ip := a.Addr(); ip.Is4() {
		b = append(b, 2, 0)
		b = binary.BigEndian.AppendUint16(b, a.Port())
		v4 := ip.As4()
		b = append(b, v4[:]...)
		return append(b, make([]byte, 8)...)
	}
	b = append(b, 10, 0)
	b = binary.BigEndian.AppendUint16(b, a.Port())
	b = append(b, make([]byte, 4)...)
	v6 := a.Addr().As16()
	b = append(b, v6[:]...)
	return append(b, make([]byte, 4)...)
}

// ParseSockaddr reads what [AppendSockaddr] writes.
func ParseSockaddr(b []byte) (netip.AddrPort, bool) {
	switch {
	case len(b) >= 8 && b[0] == 2 && b[1] == 0:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:])), binary.BigEndian.Uint16(b[2:])), true
	case len(b) >= 24 && b[0] == 10 && b[1] == 0:
		return netip.AddrPortFrom(netip.AddrFrom16([16]byte(b[8:])).Unmap(), binary.BigEndian.Uint16(b[2:])), true
	}
	return netip.AddrPort{}, false
}
