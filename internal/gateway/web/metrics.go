package web

import (
	"strconv"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// Buckets are the bounds of the histograms of this API, in seconds.
func Buckets() []float64 {
	return []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 20, 60}
}

// Register registers cs, unless reg is nil.
func Register(reg prometheus.Registerer, cs ...prometheus.Collector) error {
	if reg == nil {
		return nil
	}
	for _, c := range cs {
		if err := reg.Register(c); err != nil {
			return err
		}
	}
	return nil
}

// metrics counts what is answered. Every label has a fixed set of values:
// routes, statuses, codes.
type metrics struct {
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	refusals *prometheus.CounterVec
	faults   *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer, inFlight *Slots) (*metrics, error) {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "seckill_gateway_requests_total", Help: "HTTP requests answered, by operation and status.",
		}, []string{"route", "code"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "seckill_gateway_request_seconds", Buckets: Buckets(),
			Help: "Time from the request's header to the end of the answer, waits of long polls included.",
		}, []string{"route"}),
		refusals: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "seckill_gateway_refusals_total", Help: "Requests answered with no, by the problem's code.",
		}, []string{"code"}),
		faults: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "seckill_gateway_faults_total",
			Help: "Requests not served because something behind the gateway failed, by the problem's code.",
		}, []string{"code"}),
	}
	return m, Register(reg, m.requests, m.seconds, m.refusals, m.faults,
		inFlight.Gauge("seckill_gateway_in_flight_requests", "Requests being served, long polls not counted."))
}

// answers counts the answers of one route. Finding a counter by its labels
// costs as much as all the counting, so each is found once.
type answers struct {
	route    string
	requests *prometheus.CounterVec
	known    [600]atomic.Pointer[prometheus.Counter] // by status
}

func (m *metrics) answers(route string) *answers { return &answers{route: route, requests: m.requests} }

// of is the counter of a status; 0 when nothing was written.
func (a *answers) of(status int) prometheus.Counter {
	if status < 0 || status >= len(a.known) {
		status = 0
	}
	counter := a.known[status].Load()
	if counter == nil {
		found := a.requests.WithLabelValues(a.route, strconv.Itoa(status))
		counter = &found
		a.known[status].Store(counter)
	}
	return *counter
}
