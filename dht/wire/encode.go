package wire

import (
	"encoding/binary"
	"net/netip"

	"github.com/kith-im/kith/internal/msgpack"
)

// InlineLimit and InlineCount decide how a set of values travels: in the packet
// itself while their packed sizes add up to less than InlineLimit bytes and they
// are fewer than InlineCount, else all of them in parts.
const (
	InlineLimit = 600
	InlineCount = 50
)

// PieceSize is the payload of a part in bytes.
const PieceSize = 1280

// Packed is a value in its packed form beside its parsed one.
type Packed struct {
	Value *Value
	Bytes []byte
}

// Pack packs a value.
func Pack(v *Value) Packed { return Packed{v, v.Append(make([]byte, 0, v.Size()+len(v.Owner)+96))} }

// Inline tells whether values travel inside the packet.
func Inline(values []Packed) bool {
	total := 0
	for _, p := range values {
		total += len(p.Bytes)
	}
	return len(values) < InlineCount && total < InlineLimit
}

// Envelope is what all packets of a node have in common.
type Envelope struct {
	Self     NodeID
	Network  uint32
	ReadOnly bool
}

// Request is the body of a request; which fields are written follows the method.
type Request struct {
	Method  Method
	Key     Key
	Token   []byte
	Want    Families // 0: the family of the transport
	Query   Query    // the zero query is not written
	Values  []Packed
	Created int64 // seconds since 1970; 0 is not written
	Socket  uint32
	ValueID ValueID
	Expired []ValueID
	Renewed []ValueID
}

// AppendRequest appends a request packet. Values that do not fit in it are only
// announced by their sizes: the caller sends their parts with [AppendPiece].
func (e *Envelope) AppendRequest(b []byte, tid uint32, q *Request) []byte {
	b = msgpack.AppendMap(b, 5+e.extra())
	b = msgpack.AppendString(b, "a")
	countAt := len(b)
	n := 0
	b = append(b, 0) // the pair count, known at the end: always below 16
	put := func(key string) {
		n++
		b = msgpack.AppendString(b, key)
	}
	put("id")
	b = msgpack.AppendBin(b, e.Self[:])
	if q.Method == Listen || q.Method == Update && len(q.Expired)+len(q.Renewed) == 0 {
		put("ve")
		b = msgpack.AppendUint(b, 1)
	}
	switch q.Method {
	case Ping:
	case Find:
		put("target")
		b = msgpack.AppendBin(b, q.Key[:])
	case Update:
		if len(q.Expired)+len(q.Renewed) > 0 {
			break // notices carry no key
		}
		fallthrough
	default:
		put("h")
		b = msgpack.AppendBin(b, q.Key[:])
	}
	if q.Method == Update {
		put("sid")
		b = msgpack.AppendUint(b, uint64(q.Socket))
	}
	if q.Method == Get && !q.Query.IsZero() {
		put("q")
		b = q.Query.append(b)
	}
	if q.Want != 0 && (q.Method == Get || q.Method == Find) {
		put("w")
		b = q.Want.append(b)
	}
	if len(q.Values) > 0 {
		put("values")
		b = appendValues(b, q.Values)
	}
	if q.Method == Refresh {
		put("vid")
		b = msgpack.AppendUint(b, uint64(q.ValueID))
	}
	if q.Created != 0 {
		put("c")
		b = msgpack.AppendInt(b, q.Created)
	}
	if len(q.Token) > 0 {
		put("token")
		b = msgpack.AppendBin(b, q.Token)
	}
	if q.Method == Listen {
		put("sid")
		b = msgpack.AppendUint(b, uint64(q.Socket))
		if !q.Query.IsZero() {
			put("q")
			b = q.Query.append(b)
		}
	}
	if len(q.Renewed) > 0 {
		put("re")
		b = appendIDs(b, q.Renewed)
	}
	if len(q.Expired) > 0 {
		put("exp")
		b = appendIDs(b, q.Expired)
	}
	b[countAt] = 0x80 | byte(n)
	b = msgpack.AppendString(msgpack.AppendString(b, "q"), q.Method.String())
	b = msgpack.AppendUint(msgpack.AppendString(b, "t"), uint64(tid))
	b = append(b, 0xa1, 'y', 0xa1, 'q')
	b = msgpack.AppendString(append(b, 0xa1, 'v'), Agent)
	return e.appendExtra(b)
}

// Answer is the body of a reply. Absent fields are not written.
type Answer struct {
	ValueID ValueID    // 0: absent
	To      netip.Addr // the asker's address; the zero one is not written
	Nodes4  []byte
	Nodes6  []byte
	Token   []byte
	Values  []Packed
	Rows    []Field // with it, Values are answered by these fields
	Refused Refusal
	Plain   bool // leave out agent and kind, which nobody needs: the answer is to be no larger than the question
}

// AppendReply appends a reply packet; parts as in [Envelope.AppendRequest].
func (e *Envelope) AppendReply(b []byte, tid uint32, a *Answer) []byte {
	n := 4 + e.extra()
	if a.Plain {
		n -= 2
	}
	b = msgpack.AppendMap(b, n)
	b = msgpack.AppendString(b, "r")
	countAt := len(b)
	n = 1
	b = append(b, 0)
	b = msgpack.AppendBin(msgpack.AppendString(b, "id"), e.Self[:])
	if a.ValueID != 0 {
		n++
		b = msgpack.AppendUint(msgpack.AppendString(b, "vid"), uint64(a.ValueID))
	}
	if a.To.IsValid() {
		n++
		b = appendAddr(msgpack.AppendString(b, "sa"), a.To)
	}
	if len(a.Nodes4) > 0 {
		n++
		b = msgpack.AppendBin(msgpack.AppendString(b, "n4"), a.Nodes4)
	}
	if len(a.Nodes6) > 0 {
		n++
		b = msgpack.AppendBin(msgpack.AppendString(b, "n6"), a.Nodes6)
	}
	if len(a.Token) > 0 {
		n++
		b = msgpack.AppendBin(msgpack.AppendString(b, "token"), a.Token)
	}
	if len(a.Values) > 0 {
		n++
		if len(a.Rows) > 0 {
			b = msgpack.AppendString(b, "fileds")
			values := make([]*Value, len(a.Values))
			for i, p := range a.Values {
				values[i] = p.Value
			}
			b = appendRows(b, a.Rows, values)
		} else {
			b = appendValues(msgpack.AppendString(b, "values"), a.Values)
		}
	}
	if a.Refused != Stored {
		n++
		b = msgpack.AppendUint(msgpack.AppendString(b, "no"), uint64(a.Refused))
	}
	b[countAt] = 0x80 | byte(n)
	b = msgpack.AppendUint(append(b, 0xa1, 't'), uint64(tid))
	if !a.Plain {
		b = append(b, 0xa1, 'y', 0xa1, 'r')
		b = msgpack.AppendString(append(b, 0xa1, 'v'), Agent)
	}
	return e.appendExtra(b)
}

// AppendError appends an error packet.
func (e *Envelope) AppendError(b []byte, tid uint32, code int, text string) []byte {
	b = msgpack.AppendMap(b, 5+e.extra())
	b = msgpack.AppendArray(append(b, 0xa1, 'e'), 2)
	b = msgpack.AppendString(msgpack.AppendUint(b, uint64(code)), text)
	b = msgpack.AppendMap(append(b, 0xa1, 'r'), 1)
	b = msgpack.AppendBin(msgpack.AppendString(b, "id"), e.Self[:])
	b = msgpack.AppendUint(append(b, 0xa1, 't'), uint64(tid))
	b = append(b, 0xa1, 'y', 0xa1, 'e')
	b = msgpack.AppendString(append(b, 0xa1, 'v'), Agent)
	return e.appendExtra(b)
}

// AppendNotice appends a pushed "refreshed" or "expired" in the form before
// listen version 1, where the socket stands for the transaction.
func (e *Envelope) AppendNotice(b []byte, socket uint32, token []byte, renewed, expired []ValueID) []byte {
	b = msgpack.AppendMap(b, 4+e.extra())
	n := 2
	if len(renewed) > 0 {
		n++
	}
	if len(expired) > 0 {
		n++
	}
	b = msgpack.AppendMap(append(b, 0xa1, 'u'), n)
	b = msgpack.AppendBin(msgpack.AppendString(b, "id"), e.Self[:])
	b = msgpack.AppendBin(msgpack.AppendString(b, "token"), token)
	if len(renewed) > 0 {
		b = appendIDs(msgpack.AppendString(b, "re"), renewed)
	}
	if len(expired) > 0 {
		b = appendIDs(msgpack.AppendString(b, "exp"), expired)
	}
	b = append(b, 0xa1, 'y', 0xa1, 'r')
	b = msgpack.AppendString(append(b, 0xa1, 'v'), Agent)
	b = msgpack.AppendUint(append(b, 0xa1, 't'), uint64(socket))
	return e.appendExtra(b)
}

// AppendPiece appends a packet with the part of a packed value that starts at
// offset, at most [PieceSize] bytes of it.
func (e *Envelope) AppendPiece(b []byte, tid uint32, index, offset int, packed []byte) []byte {
	b = msgpack.AppendMap(b, 3+e.extra())
	b = e.appendExtra(b)
	b = append(b, 0xa1, 'y', 0xa1, 'p')
	b = msgpack.AppendUint(append(b, 0xa1, 't'), uint64(tid))
	b = msgpack.AppendMap(append(b, 0xa1, 'p'), 1)
	b = msgpack.AppendMap(msgpack.AppendUint(b, uint64(index)), 2)
	b = msgpack.AppendUint(append(b, 0xa1, 'o'), uint64(offset))
	return msgpack.AppendBin(append(b, 0xa1, 'd'), packed[offset:min(offset+PieceSize, len(packed))])
}

// extra counts the optional pairs of the envelope.
func (e *Envelope) extra() int {
	n := 0
	if e.Network != 0 {
		n++
	}
	if e.ReadOnly {
		n++
	}
	return n
}

func (e *Envelope) appendExtra(b []byte) []byte {
	if e.Network != 0 {
		b = msgpack.AppendUint(append(b, 0xa1, 'n'), uint64(e.Network))
	}
	if e.ReadOnly {
		b = msgpack.AppendBool(append(b, 0xa1, 's'), true)
	}
	return b
}

func (f Families) append(b []byte) []byte {
	n := 0
	for x := f; x != 0; x &= x - 1 {
		n++
	}
	b = msgpack.AppendArray(b, n)
	if f&IPv4 != 0 {
		b = msgpack.AppendUint(b, wireIPv4)
	}
	if f&IPv6 != 0 {
		b = msgpack.AppendUint(b, wireIPv6)
	}
	return b
}

func appendAddr(b []byte, a netip.Addr) []byte {
	a = a.Unmap()
	if a.Is4() {
		ip := a.As4()
		return msgpack.AppendBin(b, ip[:])
	}
	ip := a.As16()
	return msgpack.AppendBin(b, ip[:])
}

func appendIDs(b []byte, ids []ValueID) []byte {
	b = msgpack.AppendArray(b, len(ids))
	for _, id := range ids {
		b = msgpack.AppendUint(b, uint64(id))
	}
	return b
}

func appendValues(b []byte, values []Packed) []byte {
	b = msgpack.AppendArray(b, len(values))
	inline := Inline(values)
	for _, p := range values {
		if inline {
			b = append(b, p.Bytes...)
		} else {
			b = msgpack.AppendUint(b, uint64(len(p.Bytes)))
		}
	}
	return b
}

// AppendNode appends an entry to a node list of the address's family.
func AppendNode(b []byte, id NodeID, addr netip.AddrPort) []byte {
	b = append(b, id[:]...)
	if a := addr.Addr().Unmap(); a.Is4() {
		ip := a.As4()
		b = append(b, ip[:]...)
	} else {
		ip := a.As16()
		b = append(b, ip[:]...)
	}
	return binary.BigEndian.AppendUint16(b, addr.Port())
}
