package proxy

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/kith-im/kith/internal/netx"
)

// UnifiedPush sends notices to UnifiedPush and Web Push endpoints: the token is a
// URL that the device got from its push service. If the topic has the device's
// keys, as base64(p256dh)|base64(auth), the notice is encrypted to them. The zero
// value is ready for use.
//
// Since strangers choose the URLs, only https URLs of hosts on the public
// internet are accepted and redirects are not followed.
type UnifiedPush struct {
	Network netx.Network // nil: the operating system's
	// AllowPrivate also accepts http and any host. For closed networks.
	AllowPrivate bool

	once   sync.Once
	client *http.Client
}

// Push implements [Pusher].
func (u *UnifiedPush) Push(ctx context.Context, to Target, n Notice) error {
	u.once.Do(u.init)
	target, err := url.Parse(to.Token)
	if err != nil || target.Host == "" || target.User != nil ||
		target.Scheme != "https" && (target.Scheme != "http" || !u.AllowPrivate) {
		return fmt.Errorf("%w: token is not an https URL", ErrGone)
	}
	body, err := json.Marshal(n.Data)
	if err != nil {
		return fmt.Errorf("make notice: %w", err)
	}
	encoding := ""
	if to.Topic != "" {
		if body, err = encryptTo(to.Topic, body); err != nil {
			return fmt.Errorf("%w: %w", ErrGone, err)
		}
		encoding = "aes128gcm"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to.Token, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("push: %w", err)
	}
	if encoding != "" {
		req.Header.Set("Content-Encoding", encoding)
		req.Header.Set("Content-Type", "application/octet-stream")
	} else {
		req.Header.Set("Content-Type", "application/json")
	}
	req.Header.Set("TTL", strconv.Itoa(int(NoticeTTL/time.Second)))
	req.Header.Set("Urgency", map[bool]string{true: "high", false: "normal"}[n.Urgent])
	res, err := u.client.Do(req)
	if errors.Is(err, errPrivate) {
		return fmt.Errorf("%w: %w", ErrGone, err)
	}
	if err != nil {
		return fmt.Errorf("push: %w", err)
	}
	return pushStatus(res)
}

func (u *UnifiedPush) init() {
	dial := publicDial(orSystem(u.Network))
	if u.AllowPrivate {
		dial = orSystem(u.Network).Dial
	}
	u.client = &http.Client{
		Transport:     newTransport(dial, nil),
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// encryptTo encrypts a message to the keys in a topic.
func encryptTo(topic string, plain []byte) ([]byte, error) {
	public, auth, ok := strings.Cut(topic, "|")
	if !ok {
		return nil, errors.New("topic has no two keys")
	}
	device, err := anyBase64(public)
	if err != nil {
		return nil, fmt.Errorf("key p256dh: %w", err)
	}
	secret, err := anyBase64(auth)
	if err != nil {
		return nil, fmt.Errorf("key auth: %w", err)
	}
	ephemeral, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generate key: %w", err)
	}
	salt := make([]byte, saltSize)
	rand.Read(salt) // never fails
	return webPush(ephemeral, salt, device, secret, plain)
}

// anyBase64 decodes either alphabet, padded or not: devices differ.
func anyBase64(s string) ([]byte, error) {
	s = strings.NewReplacer("+", "-", "/", "_").Replace(strings.TrimRight(s, "="))
	return base64.RawURLEncoding.DecodeString(s)
}

// The sizes of Web Push encryption.
const (
	saltSize   = 16
	authSize   = 16
	recordSize = 4096 // all of the message is one record
	maxPlain   = recordSize - 16 - 1
)

// webPush encrypts a message as RFC 8291 says, with the content coding aes128gcm
// of RFC 8188. device is the uncompressed point of the device's key.
func webPush(ephemeral *ecdh.PrivateKey, salt, device, auth, plain []byte) ([]byte, error) {
	if len(auth) != authSize {
		return nil, fmt.Errorf("authentication secret of %d bytes", len(auth))
	}
	if len(plain) > maxPlain {
		return nil, fmt.Errorf("message of %d bytes, more than %d", len(plain), maxPlain)
	}
	key, err := ecdh.P256().NewPublicKey(device)
	if err != nil {
		return nil, fmt.Errorf("device key: %w", err)
	}
	shared, err := ephemeral.ECDH(key)
	if err != nil {
		return nil, fmt.Errorf("agree on a key: %w", err)
	}
	public := ephemeral.PublicKey().Bytes()
	ikm, err := hkdf.Key(sha256.New, shared, auth, "WebPush: info\x00"+string(device)+string(public), sha256.Size)
	if err != nil {
		return nil, fmt.Errorf("derive key: %w", err)
	}
	cek, err := hkdf.Key(sha256.New, ikm, salt, "Content-Encoding: aes128gcm\x00", 16)
	if err != nil {
		return nil, fmt.Errorf("derive key: %w", err)
	}
	nonce, err := hkdf.Key(sha256.New, ikm, salt, "Content-Encoding: nonce\x00", 12)
	if err != nil {
		return nil, fmt.Errorf("derive nonce: %w", err)
	}
	block, err := aes.NewCipher(cek)
	if err != nil {
		return nil, fmt.Errorf("make cipher: %w", err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("make cipher: %w", err)
	}
	out := append([]byte(nil), salt...)
	out = binary.BigEndian.AppendUint32(out, recordSize)
	out = append(append(out, byte(len(public))), public...)
	last := append(append([]byte(nil), plain...), 2) // the delimiter of the last record
	return gcm.Seal(out, nonce, last, nil), nil
}
