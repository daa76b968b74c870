package watch

import "github.com/prometheus/client_golang/prometheus"

// desc describes one of the metrics; those of a product have its labels.
func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("seckill_books_"+name, help, labels, nil)
}

// descs are the metrics of this package.
type descs struct {
	units, drift, imbalance, oversold, oldest, loaded, measured, leftOut *prometheus.Desc
}

func newDescs() descs {
	return descs{
		units: desc("units", "Units of a product by account: total, available and deducted are the ledger's, surplus and pending Redis's, "+
			"awaiting_payment, paid and cancelled the orders'.", "activity", "product", "account"),
		drift: desc("drift_units", "Surplus and pending units in Redis less the units available in the ledger: the smallest of a few looks, so that what is between the two does not count. 0 when they agree.",
			"activity", "product"),
		imbalance: desc("ledger_imbalance_units", "Total less available and deducted units of the ledger, in one snapshot. Always 0.", "activity", "product"),
		oversold:  desc("oversold_units", "Units deducted or paid beyond the total. Always 0.", "activity", "product"),
		oldest:    desc("pending_oldest_seconds", "Age of the oldest reservation that is pending in Redis, by its clock.", "activity", "product"),
		loaded:    desc("loaded", "1 when the product is in Redis, 0 when not, though its activity is online; none for other activities.", "activity", "product"),
		measured:  desc("measured_timestamp_seconds", "When the books were last read; 0 before the first time."),
		leftOut:   desc("left_out_products", "Products on sale beyond the limit, whose books are not measured."),
	}
}

// Describe sends what Collect may send.
func (w *Watch) Describe(ch chan<- *prometheus.Desc) {
	d := newDescs()
	for _, one := range []*prometheus.Desc{d.units, d.drift, d.imbalance, d.oversold, d.oldest, d.loaded, d.measured, d.leftOut} {
		ch <- one
	}
}

// Collect sends what the last round has measured. The series of a product end
// when it is no longer listed.
func (w *Watch) Collect(ch chan<- prometheus.Metric) {
	w.mu.Lock()
	seen := w.seen
	w.mu.Unlock()
	d := newDescs()
	gauge := func(desc *prometheus.Desc, value float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...)
	}
	for _, b := range seen.books {
		b.collect(d, gauge)
	}
	at := 0.0
	if !seen.at.IsZero() {
		at = float64(seen.at.UnixMilli()) / 1000
	}
	gauge(d.measured, at)
	gauge(d.leftOut, float64(seen.leftOut))
}

func (b book) collect(d descs, gauge func(*prometheus.Desc, float64, ...string)) {
	of := func(desc *prometheus.Desc, n int64) { gauge(desc, float64(n), b.activity, b.product) }
	account := func(name string, n int64) { gauge(d.units, float64(n), b.activity, b.product, name) }
	account("total", b.ledger.Total)
	account("available", b.ledger.Available)
	account("deducted", b.ledger.Deducted)
	account("awaiting_payment", b.orders.Awaiting.Units)
	account("paid", b.orders.Paid.Units)
	account("cancelled", b.orders.Cancelled.Units)
	of(d.imbalance, b.ledger.Total-b.ledger.Available-b.ledger.Deducted)
	of(d.oversold, max(0, b.ledger.Deducted-b.ledger.Total, b.orders.Paid.Units-b.ledger.Total))
	if b.online {
		loaded := map[bool]int64{true: 1}
		of(d.loaded, loaded[b.loaded])
	}
	if !b.loaded {
		return
	}
	account("surplus", b.cache.Surplus)
	account("pending", b.cache.Units)
	of(d.drift, b.drift())
	gauge(d.oldest, b.cache.Oldest.Seconds(), b.activity, b.product)
}
