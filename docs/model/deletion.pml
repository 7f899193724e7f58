/* A user is deleted while they are being read, while they buy, and while they are billed: billing is stopped
   before anything is erased, nobody who is erased comes back, and nobody is billed for ever. */

bool live;                   /* a subscription goes on at Stripe */
bool checkout = true;        /* a checkout can still be completed */
bool event;                  /* an event about the customer has not ended */
bool mark, erased;           /* deletion_requested_at, deleted_at */
bool personal;               /* the row holds a name */
byte seq = 1, marked, readAt;
bool complies;               /* what the last read showed */
bool work = true;
byte reading;
bool told;                   /* user.deleted is in the inbox */
bool pushing = true;         /* the user's run waits for EnsureStripeCustomer */
bool refusing;               /* which Stripe refuses for as long as anybody looks */
bool ended;                  /* the run has ended it */
bool linked, orphan;         /* a customer that it has made */

active proctype Clerk() {
	personal = true;
	told = true
}

/* activities.Customers.EnsureStripeCustomer: one attempt after the other, until Stripe takes it or the run ends it. */
active proctype Ensure() {
	if :: refusing = true :: true fi;
	do
	:: atomic { ended -> pushing = false; break }
	:: refusing -> ended                              /* its next attempt is no better */
	:: !refusing -> orphan = true;                    /* made at Stripe */
		atomic {                                  /* linkCreated: under the user's lock */
			if
			:: !mark -> linked = true; orphan = false
			:: else
			fi }
		pushing = false; break
	od
}

/* workflows.runUser: it looks when it is poked, whatever it waits for, and ends what is under way. */
active proctype Run() {
#ifdef NO_OVERTAKING
	told && !pushing;
#else
	told;
#endif
	/* store.RequestDeletion: the mark is numbered, and every customer is poked */
	atomic { mark = true; seq++; marked = seq; event = true };
	ended = true;
#ifndef NO_WAIT_FOR_ENDED
	!pushing;
	/* what it has made in vain is undone, by this run or the next */
	if :: orphan -> orphan = false :: else fi
#endif
}

active proctype Buyer() {
	if
	:: atomic { checkout -> checkout = false; live = true } ; event = true
	:: true
	fi
}

/* activities.Subscriptions.RecordSubscriptions and StopBilling. */
active proctype Sync() {
	byte number; bool seen;
	do
	:: atomic { event -> event = false; seq++; number = seq; reading++ }
	   seen = live;
	   atomic { readAt = number; complies = !seen }
	   if
#ifdef NO_STOP_AFTER_ERASURE
	   :: seen && mark && !erased -> live = false; event = true
#else
	   :: seen && mark -> live = false; event = true    /* and it is read again */
#endif
	   :: else
	   fi;
	   reading--
	:: timeout -> break
	od
}

/* activities.Users.EraseUser: every customer was read after the mark, and complies. */
active proctype Offboarding() {
	mark;
	/* Customers.ExpireCheckouts; one that completes all the same is stopped by its event */
	if :: checkout = false :: true fi;
#ifdef ERASE_WITHOUT_READ
	atomic { true -> assert(!live || event || checkout); erased = true; personal = false }
#else
	atomic { readAt > marked && complies -> erased = true; personal = false }
#endif
}

/* activities.Users.SyncUser: an attempt that has read the user before the deletion and wakes up after it. */
active proctype LateAttempt() {
	atomic {
		if
#ifndef NO_TOMBSTONE
		:: mark                              /* commit: a user who is being deleted is left alone */
#endif
		:: else -> personal = true
		fi
	}
}

/* What is erased stays erased. */
active proctype Quiet() {
	atomic {
		timeout ->
		assert(mark && erased);
		assert(!personal);
		assert(!live);
		assert(!orphan)
	}
}
