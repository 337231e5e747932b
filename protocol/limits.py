"""Every limit of the protocol, with its unit in the name and its reason beside it.

Room: numbers only. A limit that is part of what all nodes must agree on is
marked *agreed*: to change it is to change the protocol version.
"""

BODIES_PER_COMMIT_MAX = 10_000  # agreed; the batch limit of the API, and 340 kB of header at 34 bytes a hash
COMMIT_SIZE_MAX_BYTES = 16 << 20  # agreed; travels in frames of at most 1 MiB and is integrated when whole
BODY_SIZE_MAX_BYTES = 2 << 20  # agreed; one request's change of one document
DEPS_PER_COMMIT_MAX = 64  # agreed; more heads are first folded by empty commits
SEEN_PER_BODY_MAX = 4_096  # agreed; authors of whom one change may have seen something
OPERATIONS_PER_BODY_MAX = 4_096  # agreed
VALUE_DEPTH_MAX = 32  # agreed; lists and maps within one another in a value
NAME_LENGTH_MAX = 128  # agreed; model and document ids in a body; the longest model id the API makes has 72
TEXT_LENGTH_MAX = 256  # agreed; a user or the name of a field: far above what the API gives out

STRUCTS_PER_UPDATE_MAX = 1_024  # agreed; each may have to be placed among all that was written beside it
UNITS_PER_UPDATE_MAX = 2 << 20  # agreed; as many as a body could hold, also where none of them is sent
RANGES_PER_UPDATE_MAX = 65_536  # agreed; what is deleted may lie scattered
CLIENTS_DELETED_FROM_MAX = 4_096  # agreed; as many authors as a body may have seen
ELEMENT_SIZE_MAX_BYTES = 1 << 20  # agreed; one element of a list
CLIENT_NUMBER_MAX = (
    1 << 16
) - 1  # agreed; clients of one author in one field, for editors that are their own

WINDOW_SIZE_MAX_BYTES = 4 << 20  # agreed; one window of runs during sync, unless it is a single larger commit
WINDOW_RUNS_MAX = 4_096  # agreed; each costs a signature, 40 µs
RUN_COMMITS_MAX = 4_096  # agreed; each costs about 20 µs before the one signature can be checked
RUN_BODIES_MAX = 65_536  # agreed; each costs a hash, and 4 MiB could hold millions of empty ones
RUN_SKELETON_MAX_BYTES = 1 << 20  # agreed; decoded it takes up to 72 times as much memory
SIGNATURE_KEPT_EVERY = 64  # agreed; a prefix of a chain is proved by the next kept signature above it

# Of more live values of one field only the newest are judged, since comparing them costs a look-up for each of
# them and each author; ancestors that are in conflict themselves are judged by their own ancestors, so deep.
LIVE_JUDGED_MAX = 128  # agreed
ANCESTOR_DEPTH_MAX = 8  # agreed

CLOCK_AHEAD_MAX_MS = 5 * 60 * 1000  # a commit further ahead is kept and forwarded, materialised when due

INSTANCE_ID_LENGTH_MAX = 64
APPLICATION_ID_LENGTH_MAX = 64
