/* A command is done at Stripe, in PostgreSQL and at Clerk, or it is put back and its caller is told so: whatever
   dies in between, whoever else changes the same subscription meanwhile, and whoever else reads it: no read takes the
   place of one that began after it. */

#define ACCEPTED 0
#define ACTING 1
#define RECORDED 2
#define DONE 3
#define UNDOING 4
#define UNDONE 5
#define SUPERSEDED 6

byte status = ACCEPTED;
byte stripe;                 /* how the subscription ends: 0 as before, 1 as the command wants, 2 as somebody else does */
byte row;                    /* what is stored of it */
byte drawn;                  /* the number of the read that began last; each read draws one before it asks */
byte stored;                 /* the number of the read that the row holds */
bool keyed, undoKeyed;       /* Stripe remembers that a request was made under this key */
bool refuses;                /* Clerk takes no projection, for good */
bool portal;                 /* somebody else has changed it since */
byte deaths = 1;

/* A read is stored unless one of a higher number is. */
inline store(number, shown) {
	if
	:: number >= stored -> row = shown; stored = number; fresh = true
	:: else -> fresh = false
	fi;
	number = 0                                /* forgotten, so that fewer states differ */
}

/* ApplyCommand and UndoCommand, in two attempts: one that was given up may still be under way. */
active [2] proctype Attempt() {
	byte seen, number;
#ifdef NUMBER_BEFORE_CHANGE
	byte before;
#endif
#ifdef NUMBER_BEFORE_UNDO
	byte before;
#endif
	bool fresh;
	bool confirmed;                           /* Stripe has confirmed to this attempt, or has shown it to it */
again:
	confirmed = false;
	if
	:: atomic { status == ACCEPTED -> status = ACTING }   /* begin: committed before Stripe is asked */
	:: status == ACTING
	:: status == RECORDED -> goto publish
	:: status == UNDOING -> goto undo
	:: status == DONE || status == UNDONE || status == SUPERSEDED -> goto out
	fi;
look:
	if :: atomic { deaths > 0 -> deaths--; goto again } :: true fi;
	atomic { drawn++; number = drawn };
#ifdef NUMBER_BEFORE_CHANGE
	before = number;
#endif
	atomic { seen = stripe };
	atomic {                                  /* stored under the read fence, and decided, in one transaction */
		store(number, seen);
		if
		:: !fresh -> seen = 0; goto look      /* overtaken: read again */
		:: fresh && status != ACTING -> seen = 0; goto again
		:: fresh && status == ACTING && seen == 2 -> status = SUPERSEDED; goto out
#ifndef NUMBER_BEFORE_SEEN
		:: fresh && status == ACTING && seen == 1 && !confirmed    /* another attempt's, or somebody's: asked again */
#else
		:: fresh && status == ACTING && seen == 1 && !confirmed -> status = RECORDED; seen = 0; goto publish
#endif
		:: fresh && status == ACTING && seen == 1 && confirmed -> status = RECORDED; seen = 0; goto publish
		:: fresh && status == ACTING && seen == 0
		fi
	};
	atomic {                                  /* SetEnding under the operation's key */
#ifndef NO_KEY
		if
		:: keyed                             /* Stripe answers what it answered before, and does nothing */
		:: else ->
#endif
			keyed = true; stripe = 1;
#ifndef NO_KEY
		fi;
#endif
		confirmed = true
	};
#ifdef NUMBER_BEFORE_CHANGE
	atomic { number = before; store(number, 1); if :: fresh && status == ACTING -> status = RECORDED :: else fi };
#endif
	goto look;                                /* a read of its own says how it stands */
publish:
	if
	:: atomic { !refuses -> if :: status == RECORDED -> status = DONE :: else fi; goto out }
	:: atomic { refuses -> if :: status == RECORDED -> status = UNDOING :: else fi }
	fi;
	confirmed = false;
undo:
	if :: status != UNDOING -> goto again :: else fi;
	if :: atomic { deaths > 0 -> deaths--; goto again } :: true fi;
	atomic { drawn++; number = drawn };
#ifdef NUMBER_BEFORE_UNDO
	before = number;
#endif
	atomic { seen = stripe };
	atomic {
		store(number, seen);
		if
		:: !fresh || status != UNDOING -> seen = 0; goto undo
#ifndef NO_LOOK_BEFORE_UNDO
		:: fresh && status == UNDOING && seen == 2 -> status = SUPERSEDED; goto out
#else
		:: fresh && status == UNDOING && seen == 2
#endif
#ifndef NUMBER_BEFORE_SEEN
		:: fresh && status == UNDOING && seen == 0 && !confirmed ->
			undoKeyed = true;                 /* the key is taken, so that another attempt's request comes to nothing */
			confirmed = true; seen = 0; goto undo
#else
		:: fresh && status == UNDOING && seen == 0 && !confirmed -> status = UNDONE; goto out
#endif
		:: fresh && status == UNDOING && seen == 0 && confirmed -> status = UNDONE; goto out
		:: fresh && status == UNDOING && seen == 1 -> seen = 0
		fi
	};
	atomic {
		/* SetEnding back, under a key of its own: it sends only what the look has shown to be ours, so that what somebody
		   else has set since is left alone */
		if
		:: undoKeyed
#ifndef NO_LOOK_BEFORE_UNDO
		:: !undoKeyed && stripe == 2 -> undoKeyed = true
		:: !undoKeyed && stripe != 2 -> undoKeyed = true; stripe = 0
#else
		:: !undoKeyed -> undoKeyed = true; stripe = 0
#endif
		fi;
		confirmed = true
	};
#ifdef NUMBER_BEFORE_UNDO
	atomic { number = before; store(number, 0); if :: fresh && status == UNDOING -> status = UNDONE :: else fi };
#endif
	goto undo;
out:	skip
}

active proctype Clerk() {
	if :: refuses = true :: true fi
}

/* Somebody changes the same subscription in the portal, once ours is there; its event has it read again. */
active proctype Portal() {
	byte seen, number;
	bool fresh;
	if
	:: atomic { stripe == 1 -> stripe = 2; portal = true };
		atomic { drawn++; number = drawn };
		atomic { seen = stripe };
		atomic { store(number, seen) }
	:: true
	fi
}

/* A read of a bulk sync's, which the customer's workflow knows nothing of, begins and is stored whenever it likes. */
active proctype Bulk() {
	byte seen, number;
	bool fresh;
	atomic { drawn++; number = drawn };
	atomic { seen = stripe };
	atomic { store(number, seen) }
}

active proctype Quiet() {
	atomic {
		timeout ->
		assert(status == DONE || status == UNDONE || status == SUPERSEDED);
		assert(row == stripe);               /* though no event of the command's own change has come */
		assert(status != DONE || stripe == 1 || portal);
		assert(status != UNDONE || stripe == 0 || portal && stripe == 2);
		assert(status != SUPERSEDED || portal);
		assert(!portal || stripe == 2)       /* what somebody else did stays */
	}
}
