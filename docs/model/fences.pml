/* The fences of a sync and of a publish: whatever overtakes whatever, in the end PostgreSQL says what Stripe
   says, and Clerk what PostgreSQL says. README.md tells what stands for what. */

#define CHANGES 2
#define NONE 255

byte stripe;                 /* how often the subscription has changed at Stripe */
byte told;                   /* how many of the changes have been delivered */
byte seq = 1;                /* sync_seq */
byte arrived[3];             /* the number of each event */
bool due[3];                 /* whether it has not ended */
byte row, row_seq;           /* what is stored, and the number of the read that it is from */
byte version;                /* of the projection */
byte said[8];                /* what each version of it says */
byte published;              /* the version that is recorded as written */
byte clerk;                  /* the version that Clerk holds */
bool echoes[8];              /* which versions Clerk has yet to tell us of, since they were written */
bool forced;                 /* Clerk was seen to hold something else */
byte looking, writing;       /* syncs and publishes under way */
byte deaths = 1;             /* how often a publisher dies */

#define anyDue (due[0] || due[1])
#define behind (published != version || forced)

/* Somebody changes the subscription, and Stripe tells of it at some time. */
active proctype Stripe() {
	do
	:: stripe < CHANGES -> stripe++
	:: told < stripe -> atomic { seq++; arrived[told] = seq; due[told] = true; told++ }
	:: told == CHANGES -> break
	od
}

/* activities.Subscriptions.RecordSubscriptions: twice at once, as after a timeout, or beside a bulk sync. */
active [2] proctype Sync() {
	byte number, seen;
	do
	:: atomic { anyDue -> looking++ }
#ifdef NUMBER_AFTER_READ
	   seen = stripe;
	   atomic { seq++; number = seq }
#else
	   atomic { seq++; number = seq }      /* store.NextRead: before the first byte is asked for */
	   seen = stripe;
#endif
	   atomic {
#ifndef NO_READ_FENCE
		if
		:: number > row_seq ->
#endif
			row_seq = number;
			if
			:: seen != row -> row = seen; version++; said[version] = seen
			:: else
			fi
#ifndef NO_READ_FENCE
		:: else
		fi
#endif
		;
		/* store.TakeEvents: only what was there before the read began */
#ifdef NO_EVENT_NUMBER
		due[0] = false; due[1] = false;
#else
		due[0] = due[0] && arrived[0] >= number;
		due[1] = due[1] && arrived[1] >= number;
#endif
		looking--
	   }
	:: told == CHANGES && !anyDue -> break
	od
}

/* activities.Projections.PublishProjection: two, of which one may be an attempt that wakes up late. */
active [2] proctype Publisher() {
	byte mine;
	do
	:: atomic { behind -> writing++; forced = false; mine = version }
	   atomic { clerk = mine; echoes[mine] = true }
	   if
	   :: atomic { deaths > 0 -> deaths--; writing-- }   /* it dies before it can record that */
	   :: atomic { published = mine; writing-- }         /* store.Published: what was written, even if it is lower */
	   fi
	:: timeout -> break
	od
}

/* What follows when Clerk tells of our own write, in whatever order it tells of several. store.AddEvents ends what tells
   of the stored version; for another activities.Users.SyncUser looks at what Clerk holds. One that is lost is found by
   EventRecovery among the users whom Clerk has changed. */
active proctype Echo() {
	byte before, tells;
	do
	:: atomic { (echoes[1] || echoes[2] || echoes[3]) ->
		if
		:: echoes[1] -> tells = 1
		:: echoes[2] -> tells = 2
		:: echoes[3] -> tells = 3
		fi;
		echoes[tells] = false;
		before = version }              /* the projection first, then Clerk */
#ifndef NO_ECHO
	   atomic {
		if
		:: tells != before && clerk != before -> forced = true
		:: else
		fi }
#endif
	:: timeout -> break
	od
}

/* When nothing is left to do, everything agrees. */
active proctype Quiet() {
	atomic {
		timeout ->
		assert(told == CHANGES && !anyDue && looking == 0 && writing == 0 && !behind && version < 4);
		assert(row == stripe);
		assert(clerk == version && said[version] == row)
	}
}
