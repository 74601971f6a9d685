package kadsim
import ("testing";"context";"time";"github.com/kith-im/kith/dht/wire")
func TestZZ(t *testing.T){
 f,o:=0,0
 for seed:=range uint64(1){
	s := Scenario{Nodes: 240, Seed: 11+seed, Churn: 0.1733, Duration: 22 * time.Minute, Puts: 200, Rounds: 4, Type: wire.TypeTrustRequest}
	rep, _ := s.Run(context.Background(), nil)
	t.Log(rep.Survival, rep.Traffic)
	for _,x:=range rep.Survival{f+=x.Found;o+=x.Of}
 }
 t.Log(f,o)
}
