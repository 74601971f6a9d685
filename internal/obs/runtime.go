package obs

import "runtime/metrics"

// AddRuntime registers figures about the Go runtime that every long-running
// program wants: goroutines, live heap, all memory held, CPU seconds used.
func AddRuntime(r *Registry) {
	r.GaugeFunc("go_goroutines", "Goroutines that exist.",
		readRuntime("/sched/goroutines:goroutines"))
	r.GaugeFunc("go_heap_live_bytes", "Heap that the last garbage collection found in use.",
		readRuntime("/gc/heap/live:bytes"))
	r.GaugeFunc("go_memory_bytes", "Memory that the Go runtime holds from the system.",
		readRuntime("/memory/classes/total:bytes"))
	r.CounterFunc("go_cpu_user_seconds_total", "CPU time spent in Go code, as the runtime estimates it.",
		readRuntime("/cpu/classes/user:cpu-seconds"))
}

func readRuntime(name string) func() float64 {
	return func() float64 {
		sample := []metrics.Sample{{Name: name}}
		metrics.Read(sample)
		switch v := sample[0].Value; v.Kind() {
		case metrics.KindUint64:
			return float64(v.Uint64())
		case metrics.KindFloat64:
			return v.Float64()
		default: // a name that this version of Go does not know
			return 0
		}
	}
}
