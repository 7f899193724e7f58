/* Two commands for one subscription: the one that began last has the last word. Attempts of the first that were given up
   go on without knowing it, and send their requests whenever they like. A read may show for a moment how the
   subscription was before. */

#define ACTING 0
#define SUPERSEDED 1

byte stripe;                 /* how the subscription ends: 1 as the first command wants, 0 as the second does, and as before */
byte was;                    /* what a read that is late may still show */
byte first = ACTING;         /* the first command's row; the second's begins when it supersedes it */
byte generation;             /* of the first command's key, in our ledger */
bool used[5];                /* Stripe has an answer stored under that generation */
bool done;                   /* the second command's caller was told so */

/* Attempts of the first command that go on: each asks the ledger, then Stripe, and where Stripe refuses the key it looks
   and goes on under the next generation. */
active [2] proctype Late() {
	byte mine;
ask:
	atomic {
		if
#ifndef NO_REFUSAL
		:: first == SUPERSEDED -> goto out    /* the ledger hands out nothing for a command that has ended */
#endif
		:: else -> mine = generation
		fi
	};
	atomic {
		if
		:: used[mine]                         /* refused, since it was taken; or answered what was answered before */
		:: else -> used[mine] = true; was = stripe; stripe = 1; goto out
		fi
	};
	if
	:: stripe == 1 -> goto out                /* it is made, or need not be */
	:: else
	fi;
	atomic {
		if
#ifndef NO_REFUSAL
		:: first == SUPERSEDED -> goto out
#endif
		:: else -> if :: generation == mine && generation < 4 -> generation++ :: else fi; goto ask
		fi
	};
out:	skip
}

/* The second command, which may die at any moment and is begun again. */
active proctype Second() {
	byte seen, taken;
	byte deaths = 1;
again:
	if :: first == SUPERSEDED -> goto act :: else fi;
	taken = generation;
#ifndef NO_TAKE
	used[taken] = true;                       /* by a request that changes nothing */
#endif
	if :: atomic { deaths > 0 -> deaths--; goto again } :: true fi;
	if :: seen = stripe :: seen = was fi;
	atomic {                                  /* decided and stored in one transaction, under the first command's lock */
		if
#ifndef NO_COMPARE
		:: generation != taken -> goto again  /* an attempt has gone on to another generation meanwhile */
#endif
		:: else -> first = SUPERSEDED
		fi
	};
	if :: atomic { deaths > 0 -> deaths--; goto again } :: true fi;
#ifdef BELIEVE_LOOK
	if :: seen == 0 -> goto out :: else fi;
#endif
act:
	atomic { was = stripe; stripe = 0 };      /* under its own key, whatever the look has shown */
out:	done = true
}

active proctype Quiet() {
	atomic {
		timeout ->
		assert(done && first == SUPERSEDED);
		assert(stripe == 0)
	}
}
