/* A user who is being deleted is erased once nothing of theirs can bill any more, and in the end they are: whatever
   happens to their customer meanwhile. It may be linked while the deletion is asked for, have a schedule that has
   not begun, be gone at Stripe, or only seem to be. Numbers are not counted here: what matters of a read is whether
   it drew its own after the mark had drawn its, and whether the mark was committed by then. */

bool numbered, marked;       /* the mark has drawn deletion_seq; it is committed */
bool linked;                 /* the customer is the user's */
bool waked = true, tried;    /* the customer's workflow is to look; the user's run is to try to erase */
bool read_after;             /* read_seq > deletion_seq */
bool listed_after;           /* schedules_seq > deletion_seq: that read has listed the schedules too */
bool schedule;               /* at Stripe: one that has not begun, and will bill */
bool stored;                 /* the schedule in our rows */
bool gone;                   /* Stripe does not have the customer any more */
bool lagging;                /* Stripe answers 404 for one that it has, for a moment */
bool foreign;                /* so does the account of a wrong key, for as long as nobody mends it */
byte phase;                  /* of time: the next is later than MISSING_CONFIRMED_AFTER */
byte missed;                 /* 0, or one more than the phase in which it was first missed */
bool confirmed, erased, ready;

#ifdef NO_LISTING_FLAG
#define settled (confirmed || (read_after && !stored))
#else
#define settled (confirmed || (read_after && listed_after && !stored))
#endif

/* How things stand when the deletion is asked for. */
active proctype World() {
	atomic {
		if :: schedule = true :: true fi;
		if
		:: gone = true; schedule = false              /* what is gone bills nobody */
		:: lagging = true
		:: foreign = true
		:: true
		fi;
		ready = true
	}
}

active proctype Clock() {
	atomic { erased || marked -> true };
	do
	:: phase < 3 -> atomic { timeout ->
		phase++; lagging = false;
		if :: phase == 2 -> foreign = false :: else fi;     /* an operator has mended the key */
		tried = true }                                      /* the run's own timer, and the sweep */
	:: phase == 3 -> break
	od
}

/* store.RequestDeletion: the customers that are linked by then are woken. */
active proctype Mark() {
	ready;
	numbered = true;
	atomic { marked = true; waked = waked || linked; tried = true }
}

/* The customer is linked beside the mark. A link that is made when the mark is there is followed by the stop. */
active proctype Link() {
	bool seen;
	ready;
	seen = marked;
	atomic { linked = true; if :: seen -> waked = true :: else fi }
}

/* activities.Subscriptions.RecordSubscriptions and StopBilling. */
active proctype Sync() {
	bool after, asked, saw, missing, ours; byte began;
end:	do
	:: atomic { ready && waked -> waked = false; after = numbered; asked = marked; began = phase }
	   saw = (asked -> schedule : false);           /* schedules are listed only for who is being deleted */
	   atomic { missing = gone || lagging || foreign; ours = !foreign }
	   atomic {
		if
		:: missing ->
#ifndef NO_ACCOUNT
			if
			:: !ours || !asked                              /* it says nothing */
			:: else ->
#else
			if
			:: !asked
			:: else ->
#endif
#ifdef NO_SECOND_LOOK
				confirmed = true
#else
				if
				:: missed == 0 -> missed = phase + 1
				:: missed > 0 && began + 1 > missed -> confirmed = true
				:: else
				fi
#endif
			fi
		:: else ->
			missed = 0; confirmed = false;
			read_after = read_after || after;
			if :: asked -> listed_after = true; stored = saw :: else fi;
			if
			:: marked && (!asked || stored) -> schedule = (stored -> false : schedule); waked = true
			:: else
			fi
		fi;
		if :: marked && !erased && settled -> tried = true :: else fi;
		after = false; asked = false; saw = false; missing = false; ours = false; began = 0
	   }
	od
}

/* activities.Users.EraseUser. */
active proctype Erase() {
end:	do
	:: atomic { tried && marked && !erased -> tried = false;
		if
		:: !linked || settled ->
			assert(!linked || !schedule);
			erased = true
		:: else ->
#ifndef NO_WAKE
			waked = true
#else
			skip
#endif
		fi }
	od
}

/* In the end they are erased, and what was linked too late to be asked about is stopped by its own sync. */
active proctype Quiet() {
	atomic { phase == 3 && timeout -> assert(erased) }
}
