"""Every bound of queues, frames and buffers, with its reason; asserts tie together those that depend on each other."""

from __future__ import annotations

from typing import Final

# --- settings -------------------------------------------------------------------------------------------------------
MAX_TIME_S: Final = 365 * 86_400
"""The longest time that may be set: neither QUIC nor the wire can say infinity."""

# --- messages -------------------------------------------------------------------------------------------------------
MAX_MESSAGE_SIZE: Final = 1024 * 1024
"""Payload bytes of one message unless the broker is set otherwise."""
MAX_MESSAGE_SIZE_CEILING: Final = 64 * 1024 * 1024
"""The largest `max_message_size` that may be set: a record is held whole in memory at the edge."""
MIN_OWN_MESSAGE_SIZE: Final = 32 * 1024
"""What `max_message_size` is at least for a node itself: nodes ask each other for certificates in 1 to 3 KB."""
MAX_HEADERS_SIZE: Final = 16 * 1024
"""Encoded bytes of the headers of one message."""
BATCH_OVERHEAD: Final = 64 * 1024
"""A batch is at most `max_message_size` plus this: room for headers, topic, reply topic and the table of lengths."""
BATCH_TARGET_SIZE: Final = 48 * 1024
"""A batch is closed once it holds this many payload bytes: large enough that the cost of a batch is spread over
hundreds of small messages, small enough that a lane is not held up long by one topic."""
BATCH_MAX_MESSAGES: Final = 4096
"""A batch is closed at this many messages, however small; the table of lengths stays under 16 KiB."""

# --- topics: MQTT 5, section 4.7.3 ----------------------------------------------------------------------------------
MAX_TOPIC_SIZE: Final = 65_535

# --- control frames -------------------------------------------------------------------------------------------------
MAX_CONTROL_FRAME_SIZE: Final = 256 * 1024
"""After the proof. A Subscribe with a filter of 65,535 bytes and a list of brokers fit; more is an attack."""
MAX_CONTROL_FRAME_SIZE_BEFORE_PROOF: Final = 8 * 1024
"""Hello with a chain of three P-256 certificates has about 2.5 KiB."""
MAX_CLOSE_REASON_SIZE: Final = 500
"""Bytes of the reason in a QUIC close: it must fit a 1,200-byte datagram beside the frame."""

# --- lanes ----------------------------------------------------------------------------------------------------------
LANES: Final = 8
"""Streams for messages each way. More isolate loss better; each costs about 1 KiB of state at both ends.
aioquic allows 128 unidirectional streams, qh3 103."""
MAX_INCOMING_STREAMS: Final = 64

# --- credit ---------------------------------------------------------------------------------------------------------
PUBLISH_WINDOW: Final = 4 * 1024 * 1024
"""Bytes of records a publisher may have on their way to the broker; raised where two largest batches need more."""
SUBSCRIPTION_WINDOW_MESSAGES: Final = 16_384
SUBSCRIPTION_WINDOW_SIZE: Final = 8 * 1024 * 1024
"""What the broker may have on its way to one subscription; the rest of `max_pending` waits at the broker."""
MAX_PENDING: Final = 65_536
MAX_PENDING_SIZE: Final = 64 * 1024 * 1024
BLOCK_TIMEOUT_S: Final = 30.0

# --- links between nodes ---------------------------------------------------------------------------------------------
LINK_WINDOW: Final = 8 * 1024 * 1024
"""Bytes of records that one node may have on their way to another: two of a client's, for several publishers share it.
Larger serves longer ways at full speed, smaller keeps what a lost link takes with it small."""
LINK_QUEUE_SIZE: Final = 64 * 1024 * 1024
"""Bytes that wait for room in the window; then the oldest is dropped."""
LINK_WAITING_SIZE: Final = 256 * 1024 * 1024
"""The same for messages whose publishers wait rather than lose them. These are held back when a window's worth waits;
what they had credit for then, up to PUBLISH_WINDOW each, still comes."""
MAX_BUNDLE_SIZE: Final = MAX_MESSAGE_SIZE_CEILING + 1024 * 1024
"""Of a record on a link: nodes may be set to different `max_message_size`. A bundle holds one turn of its origin, which
closes it long before, unless a single batch is larger."""
MAX_UNREAD_FRAMES: Final = 64 * 1024 * 1024
"""Bytes of control frames on their way to a node that does not answer. All that a node with 10,000 members, each with a
hundred filters, has to tell is sent at once to one that joins: 50 MB."""
MAX_NODE_CONNECTIONS: Final = 1024
"""Sessions of kind node that a node accepts: links, and those that serve others directly for a minute."""
MAX_TRUST_SIZE: Final = 200_000
"""Of the signed list of authorities and revocations: it travels in one control frame, to nodes and to clients."""
MAX_KNOWN_KEYS: Final = 131_072
"""Public keys of nodes that are kept to check signatures, about 1 KiB each; that of the oldest record goes first."""
SENT_SHARES_SIZE: Final = 32 * 1024 * 1024
SENT_SHARES_RETENTION_S: Final = 300.0
"""Shares of groups that were sent to other nodes and may come back: what is not kept any more is not believed."""
MAX_INTEREST_SIZE: Final = 8 * 1024 * 1024
"""Bytes of the filters and groups of one member, which all nodes keep: those of eight clients at their limit."""
MAX_DIALED_ADDRESSES: Final = 16
"""Of one name."""

# --- transport: memory below the streams ----------------------------------------------------------------------------
UNDELIVERED_BEFORE_PROOF: Final = 64 * 1024
UNDELIVERED_SLACK: Final = 1024 * 1024
"""Datagram bytes fed in less stream bytes that came out, over the credit granted: over it the connection is closed."""

# --- the edge -------------------------------------------------------------------------------------------------------
MAX_CONNECTIONS: Final = 10_000
MAX_CONNECTIONS_PER_ADDRESS: Final = 1_000
"""Of an IPv4 address or an IPv6 network of 64 bits: an office behind a NAT fits, ten attackers do not fill a broker."""
MAX_WORKERS: Final = 64
"""Broker processes on one port; each tells all others its connection ids, and holds a link to most."""
MAX_HALF_OPEN: Final = 1_000
HALF_OPEN_OF_ADDRESS_SHARE: Final = 4
HALF_OPEN_OF_ADDRESS_MIN: Final = 16
"""One address may have this part of `max_half_open`, and never less than that many: it takes four attackers with
addresses of their own to keep everyone else out for the length of a handshake time-out."""
RETRY_AUTO_HALF_OPEN: Final = 100
"""`retry = "auto"` demands Retry tokens from this many connections without a proof on,"""
RETRY_AUTO_RATE: Final = 200
"""or from this many Initials without a token a second: about a quarter of the handshakes that fit in a second."""
MAX_HANDSHAKES_PER_ADDRESS: Final = 100
"""A second: at 1.3 (qh3) to 2.4 ms (aioquic) one address takes an eighth to a quarter of the loop's time."""
HANDSHAKE_SHARE: Final = 0.5
"""Of the loop's time: 10,000 clients come back within half a minute, and those that are there keep the other half."""
ANSWER_SHARE: Final = 0.2
"""Of the loop's time for Retry and version negotiation, at 20 to 40 us each: 5,000 to 10,000 a second."""
STRANGERS_TURN_S: Final = 0.001
"""Of one turn, after all connections were served: what a handshake adds to the latency of everyone else."""
SLICE_S: Final = 0.001
"""Of one turn: what one session's input may take before that of others comes, and what all that wait take together."""
LEAST_SLICE_S: Final = 0.00025
"""What the input of one more session may take in a turn whose slice others have used up: a few dozen messages."""
SUBSCRIBE_SIZE: Final = 256
"""Bytes of a Subscribe or Unsubscribe frame without its filter and group, at most."""
MIN_WAITING_CONTROL_SIZE: Final = 4 * 1024 * 1024
"""Of control frames that wait for a later turn, at least, however few subscriptions are allowed."""
MIN_UNPROVEN_SIZE: Final = 32 * 1024
"""A good client needs half of it: a handshake in datagrams of 8 KiB and a Hello; the rest is for repetitions."""
MAX_UNPROVEN_TOTAL_SIZE: Final = 16 * 1024 * 1024
"""A handshake takes 5 to 10 KB of datagrams: `MAX_HALF_OPEN` good ones fit, with ends and repetitions."""
MAX_STRANGERS_WAITING: Final = 512
MAX_STRANGERS_WAITING_SIZE: Final = 1024 * 1024
"""Datagrams of strangers that wait for their turn, of each kind; then the newest go, and dialers repeat them."""
HANDSHAKE_TIMEOUT_S: Final = 10.0
"""From the first datagram to the accepted proof."""
MAX_SUBSCRIPTIONS: Final = 10_000
"""Of one client."""
MAX_FILTERS_SIZE: Final = 1024 * 1024
"""Bytes of all filters and group names of one client: 100 for each subscription. Filters of 64 KiB that all match would
hold 640 MB, and each byte of them costs 60 ns for every topic that is new (measured)."""
MAX_PUBLISH_DELAY_S: Final = 2.0
"""Who publishes faster than a rate gets no credit until that is paid off; who owes more than this is refused."""
PUBLISH_SLACK_S: Final = 0.1
"""What may be owed before credit is withheld: batches of a client that keeps to a rate arrive in bunches."""
MAX_UNREAD_SIZE: Final = 64 * 1024 * 1024
"""Bytes for one client that its network has not taken; beyond it messages wait where the policies of their
subscriptions can drop them. Eight windows of subscriptions fit."""
MIN_UNREAD_SIZE: Final = 64 * 1024
MAX_REFUSED_OVERSIZE: Final = 8
"""Oversize messages that a peer may send, although it was told the limit, before its connection is closed."""

# --- identity -------------------------------------------------------------------------------------------------------
MAX_AUTHORITIES: Final = 4
"""Of one mesh at a time. While one follows another there are two."""
MAX_REVOKED_KEYS: Final = 1_500
"""In the trust list; each goes when no certificate for it could be renewed any more."""
MAX_KEPT_CHAINS: Final = 1_024
MAX_KEPT_CHAIN_SIZE: Final = 4 * 1024
"""Chains that were verified, and bytes of each that is kept: one of a certificate has 600. Clients that come back after
a fault, and those of a machine that share its credential, are let in with one signature verified."""
MAX_KEPT_CERTIFICATES: Final = 64
"""Of the authorities and listeners that a process has to do with, parsed: 10 KiB each."""
MAX_JOIN_TOKENS: Final = 1_000
"""That the authority keeps, in a file that is read for every request: 400 bytes each."""
MAX_USES_OF_TOKEN: Final = 1_000
"""Each key that used a token is kept with it, to be answered the same again: 60 bytes."""
MAX_SEEDS_OF_TOKEN: Final = 16

# --- joining and renewing -------------------------------------------------------------------------------------------
MAX_JOIN_SIZE: Final = 8 * 1024
"""Bytes of streams that a joiner may send in all; a renewal with a chain of two certificates has about 2 KiB."""
MAX_JOIN_REQUEST_SIZE: Final = 7 * 1024
MAX_JOINED_SIZE: Final = 320 * 1024
"""What a joiner takes: certificates and brokers have about 10 KiB, the trust list may be as long as a frame."""
MAX_JOINERS: Final = 32
"""Connections of joiners at a time, beside those of clients and nodes: one takes two round trips and a signature."""
MAX_JOINERS_PER_ADDRESS: Final = 8
MAX_JOIN_RATE: Final = 10
"""Requests with join tokens that a node passes to the authority in a second: each costs that a read of the file of
tokens, whoever sent it. A fleet of a hundred that joins at once is in after ten seconds."""
JOIN_BURST_S: Final = 10.0
"""So many seconds' worth may come at once."""
JOIN_ADDRESS_SHARE: Final = 0.25
"""What one address may have of that, so that it keeps nobody else out."""
JOIN_ADDRESSES: Final = 1_024
"""Addresses that are counted each for itself, 150 bytes each."""
JOIN_ANSWER_TIMEOUT_S: Final = 10.0
"""How long a node with the authority's key may take to answer the node that was dialed."""

# --- the client -----------------------------------------------------------------------------------------------------
OFFLINE_BUFFER_SIZE: Final = 8 * 1024 * 1024
"""Publishing while disconnected is buffered up to this many bytes, then waits."""
YIELD_AFTER_MESSAGES: Final = 512
"""A publisher that never waits looks after this many messages whether its turn is over, so that batches leave; a
subscriber that never waits gives the event loop a turn."""
PUBLISH_TURN_S: Final = 0.002
"""What is published in one turn goes out together: with many topics a longer one makes larger batches, a shorter one
leaves the event loop to others sooner."""
LONE_TURNS: Final = 8
"""After so many turns in a row with one message each, the next message leaves at once and not at the end of its turn.
Where another one follows in that turn, it cost a datagram, and messages wait for the end of turns again."""
TOPIC_CACHE_SIZE: Final = 16_384
"""Topics whose check a client remembers; more in turn cost a microsecond each."""
EVENTS_BUFFER: Final = 256
"""Events that one `bus.events()` holds unread; then the oldest goes and `missed` counts it."""
REPLY_WINDOW_MESSAGES: Final = 4096
REPLY_WINDOW_SIZE: Final = 8 * 1024 * 1024
"""Of the one subscription that takes all replies of a client; it is consumed as it arrives."""
TRACKED_BATCHES: Final = 8192
"""Batches on their way whose topics a client remembers, to name them when they are refused."""

# Permissions, decided by name and topic.
CACHED_GRANTS: Final = 16_384
"""Names whose rules a node has at hand; more than the clients of a broker, fewer than those of a large mesh."""
CACHED_RULES: Final = 262_144
"""Rules of all these names; about 100 bytes each, 600 where the name stands in it."""
CACHED_DECISIONS: Final = 65_536
CACHED_DECISIONS_SIZE: Final = 8 * 1024 * 1024
"""Topics that a node has decided on, of all names, and their bytes: a topic may have 64 KiB."""
DENIAL_PAUSE_S: Final = 60.0
"""A client that was told of in the log, for what it may not publish (or subscribe to), is told of again after this."""
REFUSAL_LINES, REFUSAL_LINES_S = 10, 10.0
"""So many lines of all clients in so many seconds, and as many of refused joiners; what is beyond is counted only."""
DENIAL_NAMES: Final = 1_024
"""Clients whose line is remembered; the oldest are forgotten."""
MAX_PERMISSIONS_FILE_SIZE: Final = 1024 * 1024
"""Of the file that holds the table: some ten thousand roles, which are read in two seconds."""

assert BATCH_TARGET_SIZE <= BATCH_OVERHEAD, "a batch that is not closed yet must be allowed"
assert BATCH_MAX_MESSAGES * 4 + 2 * MAX_HEADERS_SIZE <= BATCH_OVERHEAD, "table and headers of a full batch must fit"
assert MAX_TOPIC_SIZE < MAX_CONTROL_FRAME_SIZE
assert MAX_REVOKED_KEYS * 110 + MAX_AUTHORITIES * 4096 + 1024 <= MAX_TRUST_SIZE, "a full list must fit"
assert MAX_TRUST_SIZE + 64 < MAX_CONTROL_FRAME_SIZE
assert 2 * LANES + 2 < MAX_INCOMING_STREAMS <= 103, "qh3 allows 103 unidirectional streams"
assert UNDELIVERED_BEFORE_PROOF > MAX_CONTROL_FRAME_SIZE_BEFORE_PROOF
assert MAX_TRUST_SIZE + 64 * 1024 <= MAX_JOINED_SIZE
assert MAX_JOIN_REQUEST_SIZE + 512 < MAX_JOIN_SIZE < UNDELIVERED_BEFORE_PROOF
assert RETRY_AUTO_HALF_OPEN <= MAX_HALF_OPEN // HALF_OPEN_OF_ADDRESS_SHARE, "forged addresses must not fill a share"
assert 2 * MAX_TOPIC_SIZE <= MAX_FILTERS_SIZE, "one subscription must be allowed, whatever its filter"
assert MAX_INTEREST_SIZE >= 2 * MAX_FILTERS_SIZE
assert PUBLISH_WINDOW > MAX_MESSAGE_SIZE + BATCH_OVERHEAD
assert LINK_WAITING_SIZE >= LINK_WINDOW + 32 * PUBLISH_WINDOW, "publishers are held back after a window's worth"
assert LINK_WINDOW + UNDELIVERED_SLACK > 2 * MAX_MESSAGE_SIZE
