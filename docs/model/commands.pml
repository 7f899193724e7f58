/* A command is done at Stripe, in PostgreSQL and at Clerk, or it is put back and its caller is told so: whatever
   dies in between, and whoever else changes the same subscription meanwhile. */

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
bool keyed, undoKeyed;       /* Stripe remembers that a request was made under this key */
bool refuses;                /* Clerk takes no projection, for good */
bool portal;                 /* somebody else has changed it since */
byte deaths = 1;

/* ApplyCommand and UndoCommand, in two attempts: one that was given up may still be under way. */
active [2] proctype Attempt() {
	byte seen;
again:
	if
	:: atomic { status == ACCEPTED -> status = ACTING }   /* begin: committed before Stripe is asked */
	:: status == ACTING
	:: status == RECORDED -> goto publish
	:: status == UNDOING -> goto undo
	:: status == DONE || status == UNDONE || status == SUPERSEDED -> goto out
	fi;
	if :: atomic { deaths > 0 -> deaths--; goto again } :: true fi;
	atomic {                                  /* SetEnding under the operation's key */
#ifndef NO_KEY
		if
		:: keyed                             /* Stripe answers what it answered before, and does nothing */
		:: else ->
#endif
			keyed = true; stripe = 1
#ifndef NO_KEY
		fi
#endif
	};
	if :: atomic { deaths > 0 -> deaths--; goto again } :: true fi;
	atomic {
		seen = stripe;                       /* read back, and stored under the read fence */
		row = seen;
		if :: status == ACTING -> status = RECORDED :: else fi
	};
publish:
	if
	:: atomic { !refuses -> if :: status == RECORDED -> status = DONE :: else fi; goto out }
	:: atomic { refuses -> if :: status == RECORDED -> status = UNDOING :: else fi }
	fi;
undo:
	if :: status != UNDOING -> goto again :: else fi;
	atomic {
		seen = stripe;
#ifndef NO_LOOK_BEFORE_UNDO
		if
		:: seen == 2 -> row = 2; if :: status == UNDOING -> status = SUPERSEDED :: else fi; goto out
		:: else
		fi;
#endif
		/* SetEnding back, under a key of its own */
		if
		:: undoKeyed
		:: else -> undoKeyed = true; stripe = 0
		fi
	};
	if :: atomic { deaths > 0 -> deaths--; goto again } :: true fi;
	atomic { row = stripe; if :: status == UNDOING -> status = UNDONE :: else fi };
out:	skip
}

active proctype Clerk() {
	if :: refuses = true :: true fi
}

/* Somebody changes the same subscription in the portal, once ours is there; its event has it read again. */
active proctype Portal() {
	if
	:: atomic { stripe == 1 -> stripe = 2; portal = true }; atomic { row = stripe }
	:: true
	fi
}

active proctype Quiet() {
	atomic {
		timeout ->
		assert(status == DONE || status == UNDONE || status == SUPERSEDED);
		assert(row == stripe);
		assert(status != DONE || stripe == 1 || portal);
		assert(status != UNDONE || stripe == 0 || portal && stripe == 2);
		assert(!portal || stripe == 2)       /* what somebody else did stays */
	}
}
