// The reservations of a sale, as k6 sees them: open loop, one buyer a request.
//
//   k6 run -e URL=http://127.0.0.1:8080 -e KEY=sk_checkout_… \
//          -e ACTIVITY=… -e PRODUCTS=phone,tablet -e RATE=2000 -e SECONDS=30 bench/k6/reserve.js
//
// The activity must be on sale (seckill activity publish). Accepted and refused
// answers are measured apart: mixing them would praise a sale for being sold out.
// k6 itself takes several times the CPU of `seckill bench` for a request, so run it
// on another machine, or believe only that the gateway can do at least as much.
import http from 'k6/http';
import { check } from 'k6';
import { Counter, Trend } from 'k6/metrics';

const url = __ENV.URL || 'http://127.0.0.1:8080';
const products = (__ENV.PRODUCTS || '').split(',').filter((p) => p !== '');
const seed = __ENV.SEED || Date.now().toString(36);

const accepted = new Counter('seckill_accepted');
const refused = new Counter('seckill_refused');
const busy = new Counter('seckill_busy');
const acceptedMs = new Trend('seckill_accepted_ms', true);
const refusedMs = new Trend('seckill_refused_ms', true);

export const options = {
  discardResponseBodies: true,
  scenarios: {
    buyers: {
      executor: 'constant-arrival-rate', // sends when a request is due, whatever came of the others
      rate: Number(__ENV.RATE || 1000),
      timeUnit: '1s',
      duration: `${__ENV.SECONDS || 30}s`,
      preAllocatedVUs: Number(__ENV.VUS || 256),
      maxVUs: Number(__ENV.MAX_VUS || 2048),
    },
  },
  thresholds: {
    checks: ['rate==1'],
    seckill_accepted_ms: [`p(99)<${__ENV.P99_MS || 250}`],
  },
};

export function setup() {
  for (const name of ['KEY', 'ACTIVITY', 'PRODUCTS']) {
    if (!__ENV[name]) {
      throw new Error(`name the sale: -e ${name}=…`);
    }
  }
}

export default function () {
  const user = `${seed}-${__VU}-${__ITER}`;
  const product = products[Math.floor(Math.random() * products.length)];
  const answer = http.post(
    `${url}/v1/activities/${__ENV.ACTIVITY}/products/${product}/reservations`,
    JSON.stringify({ user_id: user, quantity: 1 }),
    { headers: { 'Content-Type': 'application/json', 'Idempotency-Key': `k6-${user}`, Authorization: `Bearer ${__ENV.KEY}` } },
  );
  if (answer.status === 202) {
    accepted.add(1);
    acceptedMs.add(answer.timings.duration);
  } else if (answer.status === 503) {
    busy.add(1);
  } else {
    refused.add(1);
    refusedMs.add(answer.timings.duration);
  }
  check(answer, { 'a yes, a no, or a wait': (r) => r.status === 202 || r.status === 409 || r.status === 422 || r.status === 429 || r.status === 503 });
}
