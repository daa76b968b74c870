/* The protocol of a flash sale: one product, TOTAL units, N reservations of one
 * unit each. README.md says which function each step is.
 *
 * A set-up is a line of setups: how many units and reservations there are, what
 * a buyer may hold, and how many faults of which kind may happen, at any moment
 * and in any order. spin tries every interleaving. When nothing can move any
 * more (timeout) the sale is at rest, and Monitor checks what must hold then;
 * what must hold at every instant is asserted where it changes.
 */
#ifndef TOTAL
#define TOTAL 1     /* units */
#endif
#ifndef N
#define N 2         /* reservations */
#endif
#ifndef LIMIT
#define LIMIT N     /* units that the one buyer of all reservations may hold */
#endif
#ifndef CRASH
#define CRASH 0     /* a process dies, or its answer is lost, between two steps */
#endif
#ifndef DOUBLE
#define DOUBLE 0    /* a record is delivered again */
#endif
#ifndef RESTART
#define RESTART 0   /* Redis restarts as it was when it last wrote to its disk */
#endif
#ifndef FLUSHALL
#define FLUSHALL 0  /* Redis loses everything */
#endif
#ifndef FORGET
#define FORGET 0    /* Kafka loses the records of a topic that wait */
#endif
#ifndef FORGE
#define FORGE 0     /* somebody writes a rollback that nobody has asked for */
#endif
#ifndef RESTOCK
#define RESTOCK 0   /* an operator adds a unit while the product sells */
#endif
#ifndef WORKERS
#define WORKERS 1   /* stock-workers that have the same partition: 2 = one is a zombie */
#endif
#ifndef LOADERS
#define LOADERS 1   /* healers that load */
#endif

#define NONE        0
#define PENDING     1 /* in Redis */
#define DEDUCTED    2 /* in Redis and in the ledger */
#define ROLLED_BACK 3 /* in Redis and in the ledger */
#define REFUSED     4 /* in the ledger */
#define AWAITING    1 /* an order */
#define PAID        2
#define CANCELLED   3

/* MySQL */
short total = TOTAL;
short available = TOTAL;
byte ledger[N];
byte orders[N];
bool outbox[N];
bool locked = 0;      /* the stock row, by who loads */

/* Redis, and its disk */
bool loaded = 1;
short surplus = TOTAL;
short told = TOTAL;   /* the total that Redis was told */
byte cache[N];
bool d_loaded = 1;
short d_surplus = TOTAL;
short d_told = TOTAL;
byte d_cache[N];

/* Kafka: whether an event waits to be handled */
bool reservations[N];
bool deductions[N];
bool rollbacks[N];
bool forged[N];       /* the rollback that waits is forged */

/* what is known beside */
bool accepted[N];     /* 202 */
bool doubt[N];        /* the healer has to apply the row */
bool lossy = 0;       /* Redis has lost something */
bool faults = 1;
byte crash = CRASH, twice = DOUBLE, restarts = RESTART, flushes = FLUSHALL, forgets = FORGET, forges = FORGE, restocks = RESTOCK;

byte deducted = 0;    /* units that the ledger has deducted */

/* lua/reserve.lua: the answer on record first. ok: 1 = pending, 2 = decided, 0 = refused */
inline reserve(i, ok) {
  if
  :: !loaded -> ok = 0
  :: loaded && cache[i] == PENDING -> ok = 1
  :: loaded && (cache[i] == DEDUCTED || cache[i] == ROLLED_BACK) -> ok = 2
  :: loaded && cache[i] == NONE && surplus > 0 -> cache[i] = PENDING; surplus--; ok = 1
  :: loaded && cache[i] == NONE && surplus <= 0 -> ok = 0
  fi
}

/* lua/apply.lua: what the ledger says of a reservation */
inline apply(i, state) {
  if
  :: !loaded -> skip
  :: loaded && state == NONE -> skip
  :: loaded && state == DEDUCTED ->
     if
     :: cache[i] == PENDING -> cache[i] = DEDUCTED
     :: cache[i] == NONE -> surplus--; cache[i] = DEDUCTED
     :: else -> skip
     fi
  :: loaded && (state == REFUSED || state == ROLLED_BACK) ->
     if
     :: cache[i] == PENDING || cache[i] == DEDUCTED -> surplus++; cache[i] = ROLLED_BACK
     :: cache[i] == NONE -> cache[i] = ROLLED_BACK
     :: else -> skip
     fi
  fi
}

/* S1: at every instant */
inline balanced() {
  assert(available >= 0);
  assert(available + deducted == total)
}

/* A buyer and the gateway. */
proctype Gateway(byte i) {
  byte pc = 0; byte ok = 0;
end: do
  :: atomic { pc == 0 -> reserve(i, ok);
       if :: ok == 1 -> pc = 1 :: ok == 2 -> pc = 3 :: ok == 0 -> pc = 3 fi; ok = 0 }
  :: atomic { pc == 1 -> reservations[i] = 1; pc = 2 }                            /* publish, acked */
  :: atomic { pc == 2 -> accepted[i] = 1; pc = 3 }                                /* 202 */
  :: atomic { (pc == 1 || pc == 2) && faults && crash > 0 -> crash--; if :: pc = 0 :: pc = 3 fi } /* retried, or not */
  od
}

/* stockworker.Deduct in its Consumer. */
proctype Deduct(byte i) {
  byte pc = 0; byte row = NONE; bool said = 0;
end: do
  :: atomic { pc == 0 && reservations[i] && !locked ->
       if
       :: ledger[i] == NONE && available > 0 && deducted < LIMIT -> ledger[i] = DEDUCTED; available--; deducted++
       :: ledger[i] == NONE && (available <= 0 || deducted >= LIMIT) ->
          assert(!accepted[i] || lossy || FORGE > 0 || LIMIT < N);                /* S9 */
          ledger[i] = REFUSED
       :: ledger[i] != NONE -> skip                                               /* seen before */
       fi;
       balanced();
       assert(deducted <= LIMIT);                                                 /* S2 */
       row = ledger[i]; said = (orders[i] != NONE || row == ROLLED_BACK); pc = 1 }
  :: atomic { pc == 1 -> apply(i, row); pc = 2 }                                  /* a refusal too */
  :: atomic { pc == 2 ->
       if
       :: said -> skip                                                            /* its effect is there */
       :: !said && row == DEDUCTED -> deductions[i] = 1
       :: !said && row != DEDUCTED -> rollbacks[i] = 1
       fi;
       said = 0; pc = 3 }
  :: atomic { pc == 3 -> reservations[i] = 0; pc = 0; row = NONE }                /* commit */
  :: atomic { pc == 3 && faults && twice > 0 -> twice--; pc = 0; row = NONE }     /* and delivered again */
  :: atomic { pc > 0 && faults && crash > 0 -> crash--; pc = 0; row = NONE; said = 0 }
  od
}

/* stockworker.Rollback in its Consumer. */
proctype Rollback(byte i) {
  byte pc = 0; byte row = NONE;
end: do
  :: atomic { pc == 0 && rollbacks[i] && !locked ->
       if
       :: ledger[i] == DEDUCTED && orders[i] == CANCELLED -> ledger[i] = ROLLED_BACK; available++; deducted--; row = ROLLED_BACK; pc = 1
       :: ledger[i] == DEDUCTED && orders[i] != CANCELLED -> assert(forged[i]); pc = 2 /* a dead letter */
       :: ledger[i] == NONE -> ledger[i] = ROLLED_BACK; row = ROLLED_BACK; pc = 1 /* a tombstone */
       :: ledger[i] == REFUSED || ledger[i] == ROLLED_BACK -> row = ledger[i]; pc = 1
       fi;
       balanced() }
  :: atomic { pc == 1 -> apply(i, row); pc = 2 }
  :: atomic { pc == 2 -> rollbacks[i] = 0; forged[i] = 0; pc = 0; row = NONE }    /* commit */
  :: atomic { pc == 2 && faults && twice > 0 -> twice--; pc = 0; row = NONE }
  :: atomic { pc > 0 && faults && crash > 0 -> crash--; pc = 0; row = NONE }
  od
}

/* The settle-worker: Settle, Payment, Expirer, Relay, Sweeper. */
proctype Settle(byte i) {
  byte pc = 0; bool sent = 0;
end: do
  :: atomic { pc == 0 && deductions[i] ->                                         /* Place */
       if :: orders[i] == NONE -> orders[i] = AWAITING :: else -> skip fi; pc = 1 }
  :: atomic { pc == 1 -> deductions[i] = 0; pc = 0 }                              /* commit */
  :: atomic { pc == 1 && faults && twice > 0 -> twice--; pc = 0 }
  :: atomic { pc == 1 && faults && crash > 0 -> crash--; pc = 0 }
  :: atomic { orders[i] == AWAITING -> orders[i] = PAID }                         /* Pay: compare and set */
  :: atomic { orders[i] == AWAITING -> orders[i] = CANCELLED; outbox[i] = 1 }     /* Cancel, Expire: and the outbox in one transaction */
  :: atomic { outbox[i] && !sent -> rollbacks[i] = 1; sent = 1 }                  /* Relay: publish */
  :: atomic { outbox[i] && sent -> outbox[i] = 0; sent = 0 }                      /* then delete */
  :: atomic { sent && faults && crash > 0 -> crash--; sent = 0 }
  :: atomic { ledger[i] == DEDUCTED && orders[i] == NONE && !deductions[i] && !reservations[i] -> deductions[i] = 1 } /* Sweeper: unsettled */
  :: atomic { ledger[i] == DEDUCTED && orders[i] == CANCELLED && !rollbacks[i] && !outbox[i] -> rollbacks[i] = 1 }    /* Sweeper: unreturned */
  od
}

/* stockworker.Reaper: what is pending in Redis and not on its way in the topic (onway.Marks). */
proctype Reaper(byte i) {
end: do
  :: atomic { loaded && cache[i] == PENDING && !reservations[i] -> reservations[i] = 1 }
  od
}

/* stockworker.Healer, what it heals: reads a row, applies it later. */
proctype Heal(byte i) {
  byte pc = 0; byte row = NONE;
end: do
  :: atomic { pc == 0 && doubt[i] && loaded -> doubt[i] = 0; row = ledger[i]; pc = 1 }
  :: atomic { pc == 1 -> apply(i, row); row = NONE; pc = 0 }
  od
}

/* stockworker.Healer, what it loads: stock.Load under the lock of the stock row,
 * which it may lose, then a heal. Several at once. */
proctype Load() {
  byte pc = 0; short units = 0; short sum = 0; byte rows[N]; byte k = 0; bool mine = 0;
end: do
  :: atomic { pc == 0 && !loaded && !locked ->
       locked = 1; mine = 1; units = available; sum = total;
       k = 0; do :: k < N -> rows[k] = ledger[k]; k++ :: else -> break od; k = 0; pc = 1 }
  :: atomic { pc == 1 && mine && faults && crash > 0 -> crash--; locked = 0; mine = 0 } /* the session with the lock ends */
  :: atomic { pc == 1 ->                                                          /* lua/preload.lua: whole or not at all, never over what is there */
       if
       :: !loaded ->
          loaded = 1; surplus = units; told = sum;
          k = 0; do :: k < N -> if :: rows[k] == REFUSED -> cache[k] = ROLLED_BACK :: else -> cache[k] = rows[k] fi; k++ :: else -> break od
       :: loaded -> skip
       fi;
       k = 0; do :: k < N -> doubt[k] = 1; rows[k] = NONE; k++ :: else -> break od; k = 0; units = 0; sum = 0; pc = 2 }
  :: atomic { pc == 2 -> if :: mine -> locked = 0; mine = 0 :: else -> skip fi; pc = 0 } /* the transaction ends */
  od
}

/* stock.Ledger.Restock, then Cache.Configure, which the Healer repeats. */
proctype Operator() {
end: do
  :: atomic { faults && restocks > 0 && !locked -> restocks--; total++; available++; balanced() }
  :: atomic { loaded && told < total -> surplus = surplus + (total - told); told = total }
  od
}

/* What goes wrong with Redis and Kafka, and its end. */
/* What nobody looks at any more is set back: states that differ only there are one. */
inline no_disk() {
  d_loaded = 0; d_surplus = 0; d_told = 0;
  k = 0; do :: k < N -> d_cache[k] = NONE; k++ :: else -> break od; k = 0
}

proctype Misfortune() {
  byte k = 0;
end: do
  :: atomic { faults && restarts > 0 ->                                           /* fsync, or a replica that catches up */
       d_loaded = loaded; d_surplus = surplus; d_told = told;
       k = 0; do :: k < N -> d_cache[k] = cache[k]; k++ :: else -> break od; k = 0 }
  :: atomic { faults && restarts > 0 ->                                           /* Redis restarts; the Healer sees another run_id */
       restarts--; lossy = 1; loaded = d_loaded; surplus = d_surplus; told = d_told;
       k = 0; do :: k < N -> cache[k] = d_cache[k]; doubt[k] = 1; k++ :: else -> break od; k = 0;
       if :: restarts == 0 -> no_disk() :: else -> skip fi }
  :: atomic { faults && flushes > 0 && loaded ->
       flushes--; lossy = 1; loaded = 0; surplus = 0; told = 0;
       k = 0; do :: k < N -> cache[k] = NONE; k++ :: else -> break od; k = 0 }
  :: atomic { faults && forgets > 0 -> forgets--; k = 0; do :: k < N -> reservations[k] = 0; k++ :: else -> break od; k = 0 }
  :: atomic { faults && forgets > 0 -> forgets--; k = 0; do :: k < N -> deductions[k] = 0; k++ :: else -> break od; k = 0 }
  :: atomic { faults && forgets > 0 -> forgets--;                                 /* rollbacks that nobody has begun with */
       k = 0; do :: k < N -> if :: ledger[k] == DEDUCTED -> rollbacks[k] = 0; forged[k] = 0 :: else -> skip fi; k++ :: else -> break od; k = 0 }
  :: atomic { faults && forges > 0 && !rollbacks[0] -> forges--; rollbacks[0] = 1; forged[0] = 1 }
  :: atomic { faults ->
       faults = 0; crash = 0; twice = 0; restarts = 0; flushes = 0; forgets = 0; forges = 0; restocks = 0; no_disk() }
  od
}

active proctype Monitor() {
  byte j = 0; byte sold = 0;
  atomic {
    do
    :: j < N ->
       run Gateway(j); run Deduct(j);
       if :: WORKERS > 1 -> run Deduct(j) :: else -> skip fi;
       run Rollback(j); run Settle(j); run Reaper(j);
       if :: RESTART + FLUSHALL > 0 -> run Heal(j) :: else -> skip fi;
       j++
    :: else -> break
    od;
    run Misfortune();
    if :: RESTOCK > 0 -> run Operator() :: else -> skip fi;
    if :: RESTART + FLUSHALL > 0 -> run Load() :: else -> skip fi;
    if :: LOADERS > 1 -> run Load() :: else -> skip fi;
    j = 0
  }
  timeout ->
  atomic {
    do
    :: j < N ->
       assert(!(accepted[j] && ledger[j] == NONE));                               /* L1 */
       assert(!(ledger[j] == DEDUCTED && orders[j] != PAID));                     /* S7 */
       assert(!(orders[j] == PAID && ledger[j] != DEDUCTED));                     /* S4 */
       assert(!(orders[j] == CANCELLED && ledger[j] != ROLLED_BACK));             /* S7 */
       assert(!outbox[j]);
       if :: ledger[j] == DEDUCTED -> sold++ :: else -> skip fi;
       assert(loaded);
       assert(cache[j] != PENDING);                                               /* S8 */
       assert(!(ledger[j] == DEDUCTED && cache[j] != DEDUCTED));                  /* S8 */
       assert(!((ledger[j] == REFUSED || ledger[j] == ROLLED_BACK) && cache[j] != ROLLED_BACK)); /* S8 */
       assert(!(ledger[j] == NONE && cache[j] != NONE));                          /* S8 */
       j++
    :: else -> break
    od;
    balanced();
    assert(sold == deducted);                                                     /* S3 */
    assert(surplus == available)                                                  /* S8, L5 */
  }
}
