// Command checkout is an example of the other side: a shop's back end that
// sells one product through a seckill gateway. It reserves for its users over
// HTTP, hears of their orders on Kafka, tells what they paid, and gives back
// money that no order can take. README.md walks through it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/leadingpeers/seckill/pkg/client"
	"github.com/leadingpeers/seckill/pkg/events"
)

// config is what the flags say.
type config struct {
	listen, gateway, key, kafka, prefix, activity, product, journal string
}

func main() {
	var cfg config
	flag.StringVar(&cfg.listen, "listen", "127.0.0.1:8090", "`address` of the shop's own API")
	flag.StringVar(&cfg.gateway, "gateway", "http://127.0.0.1:8080", "`address` of the seckill gateway")
	flag.StringVar(&cfg.kafka, "kafka", "127.0.0.1:9092", "`brokers`, host:port by comma")
	flag.StringVar(&cfg.prefix, "prefix", "seckill", "what the names of seckill's topics begin with")
	flag.StringVar(&cfg.activity, "activity", "demo", "the `activity` it sells from")
	flag.StringVar(&cfg.product, "product", "phone", "the `product` it sells")
	flag.StringVar(&cfg.journal, "journal", "checkout.jsonl", "the `file` that keeps its books")
	flag.Parse()
	cfg.key = os.Getenv("SECKILL_KEY") // not a flag: other users of the machine can read those

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	log := slog.New(slog.NewJSONHandler(os.Stderr, nil))
	if err := run(ctx, cfg, log); err != nil {
		log.Error("checkout ends", "error", err)
		os.Exit(1)
	}
}

// run serves until ctx ends.
func run(ctx context.Context, cfg config, log *slog.Logger) error {
	gateway, err := client.New(client.Config{Server: cfg.gateway, Key: cfg.key})
	if err != nil {
		return err
	}
	books, err := openBook(cfg.journal, log)
	if err != nil {
		return fmt.Errorf("open the journal %s: %w", cfg.journal, err)
	}
	defer books.close()

	kafka := events.ClientConfig{Brokers: strings.Split(cfg.kafka, ","), Prefix: cfg.prefix, ClientID: "checkout"}
	publisher := events.NewPublisher(events.PublisherConfig{ClientConfig: kafka, Now: time.Now})
	consumer := events.NewConsumer(events.ConsumerConfig{ClientConfig: kafka, Group: "checkout", Topic: events.Orders, Log: log}, books.handle, publisher)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	heard := make(chan error, 1)
	go func() { heard <- consumer.Run(ctx) }()

	s := &shop{gateway: gateway, payments: publisher, books: books, activity: cfg.activity, product: cfg.product}
	err = serve(ctx, cfg.listen, s.routes(), log)
	cancel()
	err = errors.Join(err, <-heard) // the batch in hand is finished and committed
	drain, done := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer done()
	return errors.Join(err, publisher.Close(drain))
}

// serve answers HTTP until ctx ends, and finishes what is under way.
func serve(ctx context.Context, address string, routes http.Handler, log *slog.Logger) error {
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: routes, ReadHeaderTimeout: 5 * time.Second}
	log.Info("listening", "api", ln.Addr().String())
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(ln) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	return server.Shutdown(drain)
}
