/* The one sequence is set back below numbers that are stored: by a backup that is put back, by a move that
   leaves sequences out, by a replica that was behind. Reads are under way meanwhile, and events come. In the
   end PostgreSQL says what Stripe says all the same, and no event is taken as read that was not. What is left
   out is that a number is drawn twice while the read that had it first lasts. */

#define CHANGES 2
#define BEFORE 60            /* what the sequence has handed out: more than is handed out while one read lasts */
#define MARGIN 40

byte stripe;                 /* how often the subscription has changed at Stripe */
byte told;                   /* how many of the changes have been delivered */
byte seq = BEFORE;           /* sync_seq */
byte arrived[2];             /* the number of each event */
bool due[2];                 /* whether it has not ended */
byte row, row_seq;           /* what is stored, and the number of the read that it is from */
byte skippedFrom, skippedTo; /* number_raises: what a raise of the sequence left out */
byte looking;                /* syncs under way */
bool restored;

#define anyDue (due[0] || due[1])
/* What is met in the entity's rows, or the read's own number, was not handed out by this sequence. */
#define stored_is_ahead (row_seq > seq || (due[0] && arrived[0] > seq) || (due[1] && arrived[1] > seq))
#define skipped(n) (n > skippedFrom && n <= skippedTo)
#define number_is_lost (number > seq || skipped(number))
/* It loses to a number that no read of this sequence had. */
#define loses_to_lost (row_seq > number && skipped(row_seq))

/* raise_sync_seq: past the highest number that is stored, never lower. */
inline raise(highest) {
	highest = row_seq;
	if :: told > 0 && arrived[0] > highest -> highest = arrived[0] :: else fi;
	if :: told > 1 && arrived[1] > highest -> highest = arrived[1] :: else fi;
	if
	:: highest + MARGIN > seq -> skippedFrom = seq; seq = highest + MARGIN; skippedTo = seq
	:: else
	fi;
	highest = 0
}

/* Somebody changes the subscription, and Stripe tells of it at some time. */
active proctype Stripe() {
	do
	:: stripe < CHANGES -> stripe++
	:: atomic { told < stripe -> seq++; arrived[told] = seq; due[told] = true; told++ }
	:: told == CHANGES -> break
	od
}

/* activities.Subscriptions.RecordSubscriptions, as every other read that is fenced by numbers. */
active [2] proctype Sync() {
	byte number, seen, highest;
end:	do
	:: atomic { anyDue -> looking++; seq++; number = seq }
	   seen = stripe;
	   atomic {
		/* store.Tx.Reading: nothing is stored and nothing completed, and the next attempt draws anew */
		if
#ifndef NO_RAISE
		:: stored_is_ahead -> raise(highest)
#endif
#ifndef NO_LOST_NUMBERS
		:: number_is_lost -> raise(highest)
#endif
#ifndef NO_LOST_WINNERS
		:: loses_to_lost
#endif
		:: else ->
			if
			:: number > row_seq -> row_seq = number; row = seen
			:: else
			fi;
			due[0] = due[0] && arrived[0] >= number;
			due[1] = due[1] && arrived[1] >= number
		fi;
		looking--; number = 0; seen = 0
	   }
	od
}

/* The database is put back: its sequence alone, or its rows with it. */
active proctype Restore() {
	if
	:: atomic { true -> seq = 1; restored = true }
	:: atomic { true -> seq = 1; restored = true;
		row_seq = (row_seq > 0 -> 1 : 0); row = (row < 1 -> row : 1);
		/* what had been stored since is to be recovered from Stripe's list: deliveries that are gone come again */
		due[0] = told > 0; arrived[0] = 1; due[1] = told > 1; arrived[1] = 1 }
	:: true
	fi
}

/* A program starts. */
active proctype Start() {
	byte highest;
	if :: atomic { restored -> raise(highest) } :: true fi
}

/* When nothing is left to do, PostgreSQL says what Stripe says. */
active proctype Quiet() {
	atomic {
		timeout ->
		assert(told == CHANGES && !anyDue && looking == 0);
		assert(row == stripe)
	}
}
