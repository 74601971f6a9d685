package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/kith-im/kith/internal/msgpack"
)

// Kind tells what a packet is.
type Kind uint8

// The kinds of packet.
const (
	Ask Kind = iota + 1 // a request
	Reply
	Error
	Parts  // pieces of the values that an earlier packet announced
	Notice // a pushed "refreshed" or "expired", the form before listen version 1
)

// Method names a request.
type Method uint8

// The requests.
const (
	Ping Method = iota + 1
	Find
	Get
	Put
	Listen
	Refresh
	Update
)

var methodNames = [...]string{Ping: "ping", Find: "find", Get: "get", Put: "put", Listen: "listen", Refresh: "refresh", Update: "update"}

// String returns the name on the wire.
func (m Method) String() string {
	if int(m) < len(methodNames) && m > 0 {
		return methodNames[m]
	}
	return "unknown"
}

// The error codes of the protocol.
const (
	CodeNoKey        = 203 // key missing, or a value id of zero
	CodeUnauthorized = 401 // wrong token
	CodeNotFound     = 404 // refresh of something not stored
)

// Families is a set of address families.
type Families uint8

// The families; their numbers on the wire are Linux's.
const (
	IPv4 Families = 1 << iota
	IPv6
)

const (
	wireIPv4 = 2
	wireIPv6 = 10
)

// FamilyOf returns the family of an address.
func FamilyOf(a netip.Addr) Families {
	if a.Is4() || a.Is4In6() {
		return IPv4
	}
	return IPv6
}

// MaxToken is how long a write token may be, in bytes.
const MaxToken = 64

// maxValues bounds the values, parts or ids that one packet may name.
const maxValues = 1 << 12

// Agent is what our packets say in "v". Peers do not act on it.
const Agent = "KT1"

// Refusal is why a node did not store a value although its reply is positive, as
// OpenDHT's always is. It travels in a key that OpenDHT ignores.
type Refusal uint8

// The reasons.
const (
	Stored    Refusal = iota // not refused
	BadValue                 // its type's rules or its signature forbid it
	Conflict                 // another value has that id and may not be replaced by it
	OverQuota                // no room for more of this sender
)

// Message is one packet. Which fields count follows from Kind and Method. Byte
// slices alias the packet that was read. A Message can be read into again and
// again: [Message.Parse] keeps the room of its slices.
type Message struct {
	Kind     Kind
	Method   Method
	TID      uint32
	Network  uint32 // network id, 0 is the public one
	ReadOnly bool   // the sender does not want to be in routing tables
	Kith     bool   // the sender is of our kind: it tells refusals

	From    NodeID
	Key     Key // "h" or "target"
	Token   []byte
	Want    Families
	Query   Query
	Version int // of listen and update: 1, or 0 for the old form
	Socket  uint32
	ValueID ValueID
	Refused Refusal
	Created int64 // seconds since 1970, 0 when absent

	Values  []*Value // sent whole
	Sizes   []int    // packed sizes of values that follow in parts
	BadVals int      // values that could not be read
	Rows    []Row
	HasRows bool
	Expired []ValueID
	Renewed []ValueID

	Addr   netip.Addr // "sa": the receiver's address as the sender sees it
	Nodes4 []byte     // "n4", whole entries
	Nodes6 []byte     // "n6", whole entries

	Code int
	Text string

	Pieces []Piece

	signatures []bool // of Values, once they were checked
}

// Piece is a part of a value that is sent in parts.
type Piece struct {
	Index  int // of the value in the packet that announced it
	Offset int
	Data   []byte
}

// ErrPacket is wrapped by every error about a packet that can't be read.
var ErrPacket = errors.New("invalid DHT packet")

// Sizes of node entries: id, address, port.
const (
	node4Size = IDSize + 4 + 2
	node6Size = IDSize + 16 + 2
)

// Parse reads the packet b into m, which it resets first.
func (m *Message) Parse(b []byte) error {
	m.reset()
	r := msgpack.NewReader(b)
	if err := m.read(&r); err != nil {
		return fmt.Errorf("%w: %w", ErrPacket, err)
	}
	return nil
}

func (m *Message) reset() {
	*m = Message{
		Values: m.Values[:0], Sizes: m.Sizes[:0], Rows: m.Rows[:0],
		Expired: m.Expired[:0], Renewed: m.Renewed[:0], Pieces: m.Pieces[:0], signatures: m.signatures[:0],
	}
}

func (m *Message) read(r *msgpack.Reader) error {
	var y byte
	var hasA, hasE, hasR, hasP, hasU, hasT bool
	err := eachKey(r, func(key []byte) error {
		switch string(key) {
		case "a":
			hasA = true
			return m.readBody(r)
		case "r":
			hasR = true
			return m.readBody(r)
		case "u":
			hasU = true
			return m.readBody(r)
		case "p":
			hasP = true
			return m.readPieces(r)
		case "e":
			hasE = true
			return m.readError(r)
		case "t":
			hasT = true
			return m.readTID(r)
		case "y":
			s, err := r.Str()
			if err == nil && len(s) != 1 {
				return errors.New("unknown kind of packet")
			}
			if err == nil {
				y = s[0]
			}
			return err
		case "q":
			s, err := r.Str()
			if err == nil {
				m.Method = methodOf(s)
			}
			return err
		case "v":
			s, err := r.Bytes()
			m.Kith = string(s) == Agent
			return err
		case "n":
			n, err := readUint32(r)
			m.Network = n
			return err
		case "s":
			s, err := r.Bool()
			m.ReadOnly = s
			return err
		}
		return r.Skip()
	})
	if err != nil {
		return err
	}
	switch {
	case r.Len() != 0:
		return errors.New("bytes follow the packet")
	case !hasT:
		return errors.New("no transaction id")
	case hasE:
		m.Kind = Error
	case hasR:
		m.Kind = Reply
	case hasP:
		m.Kind = Parts
		return nil // carries no sender id
	case hasU:
		m.Kind = Notice
	case hasA:
		m.Kind = Ask
		if y != 0 && y != 'q' {
			return errors.New("a request that does not say so")
		}
		if m.Method == 0 {
			return errors.New("unknown request")
		}
	default:
		return errors.New("neither request nor answer")
	}
	if m.From.IsZero() {
		return errors.New("no sender id")
	}
	return nil
}

func methodOf(s []byte) Method {
	for i := range methodNames {
		if i > 0 && methodNames[i] == string(s) {
			return Method(i)
		}
	}
	return 0
}

func readUint32(r *msgpack.Reader) (uint32, error) {
	n, err := r.Uint()
	if err == nil && n > 1<<32-1 {
		err = msgpack.ErrRange
	}
	return uint32(n), err
}

// readTID reads a number, or the old form: 4 bytes.
func (m *Message) readTID(r *msgpack.Reader) (err error) {
	if r.Kind() == msgpack.Int {
		m.TID, err = readUint32(r)
		return err
	}
	b, err := r.Bytes()
	if err == nil && len(b) != 4 {
		return fmt.Errorf("transaction id of %d bytes", len(b))
	}
	if err == nil {
		m.TID = binary.BigEndian.Uint32(b)
	}
	return err
}

func readHash(r *msgpack.Reader, to *[IDSize]byte) error {
	b, err := r.Bin()
	if err != nil {
		return err
	}
	if len(b) != IDSize {
		return fmt.Errorf("id of %d bytes", len(b))
	}
	copy(to[:], b)
	return nil
}

func (m *Message) readBody(r *msgpack.Reader) error {
	return eachKey(r, func(key []byte) (err error) {
		switch string(key) {
		case "id":
			return readHash(r, (*[IDSize]byte)(&m.From))
		case "h", "target":
			return readHash(r, (*[IDSize]byte)(&m.Key))
		case "token":
			m.Token, err = r.Bytes()
			if len(m.Token) > MaxToken {
				m.Token = nil
			}
		case "w":
			return m.readWant(r)
		case "q":
			m.Query, err = readQuery(r)
		case "values":
			return m.readValues(r)
		case "fileds":
			m.HasRows = true
			m.Rows, err = readRows(r)
		case "vid":
			var id uint64
			id, err = r.Uint()
			m.ValueID = ValueID(id)
		case "no":
			var n uint64
			n, err = r.Uint()
			m.Refused = Refusal(min(n, 255))
		case "c":
			m.Created, err = r.Int()
		case "sid":
			m.Socket, err = readUint32(r)
		case "ve":
			var v int64
			v, err = r.Int()
			m.Version = int(min(max(v, 0), 255))
		case "exp":
			m.Expired, err = readIDs(r, m.Expired)
		case "re":
			m.Renewed, err = readIDs(r, m.Renewed)
		case "sa":
			var b []byte
			b, err = r.Bytes()
			if a, ok := netip.AddrFromSlice(b); ok {
				m.Addr = a.Unmap()
			}
		case "n4":
			m.Nodes4, err = readNodes(r, node4Size)
		case "n6":
			m.Nodes6, err = readNodes(r, node6Size)
		default:
			err = r.Skip()
		}
		return err
	})
}

func readNodes(r *msgpack.Reader, size int) ([]byte, error) {
	b, err := r.Bytes()
	if err == nil && len(b)%size != 0 {
		err = fmt.Errorf("node list of %d bytes", len(b))
	}
	return b, err
}

func (m *Message) readWant(r *msgpack.Reader) error {
	n, err := r.Array()
	if err != nil {
		return err
	}
	if n > maxFilters {
		return errors.New("too many address families")
	}
	for range n {
		f, err := r.Uint()
		if err != nil {
			return err
		}
		switch f {
		case wireIPv4:
			m.Want |= IPv4
		case wireIPv6:
			m.Want |= IPv6
		}
	}
	return nil
}

func (m *Message) readValues(r *msgpack.Reader) error {
	n, err := r.Array()
	if err != nil {
		return err
	}
	if n+len(m.Values)+len(m.Sizes)+m.BadVals > maxValues {
		return errors.New("too many values")
	}
	for range n {
		if r.Kind() == msgpack.Int {
			size, err := r.Uint()
			if err != nil {
				return err
			}
			m.Sizes = append(m.Sizes, int(min(size, 1<<31-1)))
			continue
		}
		raw, err := r.Raw()
		if err != nil {
			return err
		}
		v, err := ParseValue(raw)
		if err != nil {
			m.BadVals++ // the others still count
			continue
		}
		m.Values = append(m.Values, v)
	}
	return nil
}

func readIDs(r *msgpack.Reader, to []ValueID) ([]ValueID, error) {
	n, err := r.Array()
	if err != nil {
		return to, err
	}
	if n+len(to) > maxValues {
		return to, errors.New("too many value ids")
	}
	for range n {
		id, err := r.Uint()
		if err != nil {
			return to, err
		}
		to = append(to, ValueID(id))
	}
	return to, nil
}

func (m *Message) readError(r *msgpack.Reader) error {
	n, err := r.Array()
	if err != nil {
		return err
	}
	if n == 0 {
		return errors.New("error without code")
	}
	code, err := r.Uint()
	if err != nil {
		return err
	}
	m.Code = int(min(code, 1<<16))
	for i := 1; i < n; i++ {
		if i == 1 && r.Kind() == msgpack.Str {
			s, err := r.Str()
			if err != nil {
				return err
			}
			m.Text = string(s[:min(len(s), 200)])
			continue
		}
		if err := r.Skip(); err != nil {
			return err
		}
	}
	return nil
}

func (m *Message) readPieces(r *msgpack.Reader) error {
	n, err := r.Map()
	if err != nil {
		return err
	}
	if n+len(m.Pieces) > maxValues {
		return errors.New("too many parts")
	}
	for range n {
		index, err := r.Uint()
		if err != nil {
			return err
		}
		p := Piece{Index: int(min(index, 1<<31-1))}
		err = eachKey(r, func(key []byte) (err error) {
			switch string(key) {
			case "o":
				var o uint64
				o, err = r.Uint()
				p.Offset = int(min(o, 1<<31-1))
			case "d":
				p.Data, err = r.Bytes()
			default:
				err = r.Skip()
			}
			return err
		})
		if err != nil {
			return err
		}
		m.Pieces = append(m.Pieces, p)
	}
	return nil
}

// Node is an entry of a node list.
type Node struct {
	ID   NodeID
	Addr netip.AddrPort
}

// maxNodes bounds the entries of a node list that are looked at. Peers send 8.
const maxNodes = 16

// EachNode calls f for the entries of both node lists, the first 16 of each.
func (m *Message) EachNode(f func(Node)) {
	for b := m.Nodes4[:min(len(m.Nodes4), maxNodes*node4Size)]; len(b) >= node4Size; b = b[node4Size:] {
		f(Node{NodeID(b[:IDSize]), netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[IDSize:])), binary.BigEndian.Uint16(b[IDSize+4:]))})
	}
	for b := m.Nodes6[:min(len(m.Nodes6), maxNodes*node6Size)]; len(b) >= node6Size; b = b[node6Size:] {
		f(Node{NodeID(b[:IDSize]), netip.AddrPortFrom(netip.AddrFrom16([16]byte(b[IDSize:])), binary.BigEndian.Uint16(b[IDSize+16:]))})
	}
}

// maxSigned is how many signed values of one packet are verified. Verifying is slow,
// and peers send one at a time.
const maxSigned = 8

// CheckSignatures verifies the signatures of the signed values, which is slow, and
// remembers the outcome for [Message.SignatureOK].
func (m *Message) CheckSignatures() {
	m.signatures = m.signatures[:0]
	signed := 0
	for _, v := range m.Values {
		ok := false
		if v.Signed() && signed < maxSigned {
			signed++
			ok = v.VerifySignature() == nil
		}
		m.signatures = append(m.signatures, ok)
	}
}

// SignatureOK tells whether the i-th value is signed and [Message.CheckSignatures]
// found that its signature verifies.
func (m *Message) SignatureOK(i int) bool {
	return i < len(m.signatures) && m.signatures[i]
}

// Header returns a copy of m that aliases nothing, without what lists: values,
// rows and ids.
func (m *Message) Header() Message {
	h := *m
	h.Token, h.Nodes4, h.Nodes6 = bytes.Clone(m.Token), bytes.Clone(m.Nodes4), bytes.Clone(m.Nodes6)
	h.Values, h.Sizes, h.Rows, h.Expired, h.Renewed, h.Pieces, h.signatures = nil, nil, nil, nil, nil, nil, nil
	return h
}
