package kadsim
import ("testing";"sort";"time";"github.com/kith-im/kith/dht/wire")
func TestEst(t *testing.T){
 for _,n:=range []int{64,300,1000}{
 w:=New(1,wan); grow(w,n); w.Run(10*time.Second)
 for range 2 {
 var e []int; known:=0
 for _,h:=range w.Alive(){ i:=h.Core.Info(w.Now).V4; e=append(e,i.Estimate);known+=i.Known}
 sort.Ints(e)
 var wd,gets uint64
 for _,h:=range w.Alive(){ wd+=h.Core.Stats().Widened; gets+=h.Core.Stats().Asked[wire.Find]}
 t.Log(n,"est",e[0],e[len(e)/10],e[len(e)/2],e[len(e)*9/10],e[len(e)-1],"known",known/n,"widened",wd,"finds/node",gets/uint64(n), "cand")
 w.Run(5*time.Minute)
 }
 }
}
