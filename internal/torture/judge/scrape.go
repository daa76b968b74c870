package judge

import (
	"bufio"
	"context"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Scraper adds up the counters of processes that die and come back, and keeps
// the greatest of what may grow.
type Scraper struct {
	client http.Client

	mu    sync.Mutex
	last  map[string]float64 // process and series → at the last look
	total map[string]float64 // series without labels → over all lives
	peak  map[string]float64
	end   map[string]float64 // process and series → now
}

// counters are what is added up, and grows what is watched.
func counters() []string {
	return []string{"seckill_reaped_total", "seckill_swept_total", "seckill_relayed_total", "seckill_loaded_total", "seckill_healed_total", "seckill_audit_violations_total", `seckill_cache_applied_total{outcome="adopted"}`, `seckill_cache_applied_total{outcome="same"}`}
}

func grows() []string {
	return []string{"process_resident_memory_bytes", "go_goroutines", "process_open_fds"}
}

// NewScraper returns a scraper that has seen nothing.
func NewScraper() *Scraper {
	return &Scraper{client: http.Client{Timeout: time.Second}, last: map[string]float64{}, total: map[string]float64{}, peak: map[string]float64{}, end: map[string]float64{}}
}

// Look asks one process; an empty address is one that does not run.
func (s *Scraper) Look(ctx context.Context, process, address string) {
	if address == "" {
		return
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/metrics", nil)
	if err != nil {
		return
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return // it has died, or stands still
	}
	defer func() { _ = resp.Body.Close() }()
	s.mu.Lock()
	defer s.mu.Unlock()
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		series, text, ok := strings.Cut(lines.Text(), "} ")
		if ok {
			series += "}"
		} else if series, text, ok = strings.Cut(lines.Text(), " "); !ok || strings.HasPrefix(series, "#") {
			continue
		}
		value, err := strconv.ParseFloat(text, 64)
		if err != nil {
			continue
		}
		s.take(process, series, value)
	}
}

func (s *Scraper) take(process, series string, value float64) {
	for _, name := range counters() {
		if series == name || strings.HasPrefix(series, name+"{") {
			key := process + " " + series
			if value < s.last[key] { // another life
				s.last[key] = 0
			}
			s.total[name] += value - s.last[key]
			s.last[key] = value
		}
	}
	for _, name := range grows() {
		if series == name {
			s.peak[name] = max(s.peak[name], value)
			s.end[process+" "+name] = value
		}
	}
}

// Total is a counter over all processes and all their lives.
func (s *Scraper) Total(name string) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return int64(s.total[name])
}

// Growth is the greatest of what may grow at any look, and at the last one.
func (s *Scraper) Growth() map[string]int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[string]int64{}
	for _, name := range grows() {
		out["peak_"+name] = int64(s.peak[name])
		for key, v := range s.end {
			if strings.HasSuffix(key, " "+name) {
				out["end_"+name] = max(out["end_"+name], int64(v))
			}
		}
	}
	return out
}
