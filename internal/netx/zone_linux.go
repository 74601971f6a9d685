package netx

import (
	"net"
	"strconv"
	"time"
)

// zoneLife is how long a zone name is believed to be that of its interface.
const zoneLife = time.Minute

// maxZones bounds a cache; a machine has few interfaces, but their indexes in
// packets to send come from elsewhere.
const maxZones = 256

// zoneCache maps interface indexes to names and back, so that not every
// link-local packet costs a question to the kernel. Its user locks it.
type zoneCache struct {
	names   map[uint32]string
	indexes map[string]uint32
	expires time.Time
}

// fresh empties the cache when it is old or full.
func (z *zoneCache) fresh() {
	now := time.Now()
	if now.After(z.expires) || len(z.names) >= maxZones || len(z.indexes) >= maxZones {
		z.names = make(map[uint32]string)
		z.indexes = make(map[string]uint32)
		z.expires = now.Add(zoneLife)
	}
}

// name gives the name of an interface, or its number when it has none (any more).
func (z *zoneCache) name(index uint32) string {
	z.fresh()
	name, ok := z.names[index]
	if !ok {
		name = strconv.FormatUint(uint64(index), 10)
		if ifi, err := net.InterfaceByIndex(int(index)); err == nil {
			name = ifi.Name
		}
		z.names[index] = name
	}
	return name
}

// index is the reverse of name.
func (z *zoneCache) index(name string) (uint32, error) {
	z.fresh()
	index, ok := z.indexes[name]
	if !ok {
		if ifi, err := net.InterfaceByName(name); err == nil {
			index = uint32(ifi.Index)
		} else if n, nerr := strconv.ParseUint(name, 10, 32); nerr == nil {
			index = uint32(n)
		} else {
			return 0, err
		}
		z.indexes[name] = index
	}
	return index, nil
}
