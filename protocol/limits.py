"""Every limit of the protocol, with its unit in the name and its reason beside it.

Room: numbers only. A limit that is part of what all nodes must agree on is
marked *agreed*: to change it is to change the protocol version.
"""

BODIES_PER_COMMIT_MAX = 10_000  # agreed; the batch limit of the API, and 340 kB of header at 34 bytes a hash
COMMIT_SIZE_MAX_BYTES = 16 << 20  # agreed; travels in frames of at most 1 MiB and is integrated when whole
BODY_SIZE_MAX_BYTES = 2 << 20  # agreed; one request's change of one document
DEPS_PER_COMMIT_MAX = 64  # agreed; more heads are first folded by empty commits
SEEN_PER_BODY_MAX = 4_096  # agreed; live dots that one change may supersede
OPERATIONS_PER_BODY_MAX = 4_096  # agreed
VALUE_DEPTH_MAX = 32  # agreed; nesting of a value; the decoder itself allows a few levels more for the envelope
WINDOW_SIZE_MAX_BYTES = 4 << 20  # one window of runs during sync
SIGNATURE_KEPT_EVERY = 64  # agreed; a prefix of a chain is proved by the next kept signature above it

CLOCK_AHEAD_MAX_MS = 5 * 60 * 1000  # a commit further ahead is stored and forwarded, and materialised when due

INSTANCE_ID_LENGTH_MAX = 64
APPLICATION_ID_LENGTH_MAX = 64
