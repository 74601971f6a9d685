package proxy

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/kith-im/kith/internal/netx"
)

// Gorush sends notices to phones through a gorush server, which has the keys of
// Google's and Apple's services. The zero value with a URL is ready for use.
type Gorush struct {
	URL     string       // of the server, such as "http://127.0.0.1:8088"
	Network netx.Network // nil: the operating system's

	once   sync.Once
	client *http.Client
}

// The numbers of platforms in gorush.
const (
	gorushIOS     = 1
	gorushAndroid = 2
)

// gorushNotice is one notification of gorush's API.
type gorushNotice struct {
	Tokens     []string          `json:"tokens"`
	Platform   int               `json:"platform"`
	Data       map[string]string `json:"data"`
	Priority   string            `json:"priority"`
	TimeToLive int               `json:"time_to_live,omitempty"` // gorush before 1.18
	Android    *gorushAndroidOpt `json:"android,omitempty"`
	Expiration int64             `json:"expiration,omitempty"`
	Topic      string            `json:"topic,omitempty"`
	PushType   string            `json:"push_type,omitempty"`
	Alert      map[string]string `json:"alert,omitempty"`
	Mutable    bool              `json:"mutable_content,omitempty"`
	Content    bool              `json:"content_available,omitempty"`
}

type gorushAndroidOpt struct {
	Priority string `json:"priority"`
	TTL      string `json:"ttl"`
}

// Push implements [Pusher] for the platforms "android" and "ios".
func (g *Gorush) Push(ctx context.Context, to Target, n Notice) error {
	g.once.Do(func() { g.client = &http.Client{Transport: newTransport(orSystem(g.Network).Dial, nil)} })
	msg := gorushNotice{Tokens: []string{to.Token}, Data: n.Data, Priority: "normal"}
	if n.Urgent {
		msg.Priority = "high"
	}
	ttl := int(NoticeTTL / time.Second)
	switch to.Platform {
	case "ios":
		msg.Platform = gorushIOS
		msg.Topic = to.Topic
		msg.Expiration = time.Now().Add(NoticeTTL).Unix()
		if n.Visible {
			msg.PushType, msg.Mutable = "alert", true
			msg.Alert = map[string]string{"title": "hello"} // the app shows another text, or none
		} else {
			msg.PushType, msg.Content = "background", true
			msg.Priority = "normal" // what Apple demands
		}
	case "android":
		msg.Platform = gorushAndroid
		msg.TimeToLive = ttl
		msg.Android = &gorushAndroidOpt{Priority: msg.Priority, TTL: fmt.Sprintf("%ds", ttl)}
	default:
		return fmt.Errorf("%w: gorush has no platform %.20q", ErrGone, to.Platform)
	}
	body, err := json.Marshal(map[string][]gorushNotice{"notifications": {msg}})
	if err != nil {
		return fmt.Errorf("make notification: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(g.URL, "/")+"/api/push", bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("push through gorush: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := g.client.Do(req)
	if err != nil {
		return fmt.Errorf("push through gorush: %w", err)
	}
	return pushStatus(res)
}

// pushStatus turns a push service's answer into an error.
func pushStatus(res *http.Response) error {
	defer res.Body.Close()
	_, _ = io.CopyN(io.Discard, res.Body, 4<<10) // so that the connection can be used again
	switch {
	case res.StatusCode < 300:
		return nil
	case res.StatusCode == http.StatusNotFound || res.StatusCode == http.StatusGone:
		return fmt.Errorf("%w: push service answers %d", ErrGone, res.StatusCode)
	}
	return errors.New("push service answers " + res.Status)
}

func orSystem(n netx.Network) netx.Network {
	if n == nil {
		return &netx.System{}
	}
	return n
}
