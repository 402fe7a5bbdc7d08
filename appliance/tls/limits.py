"""Sizes and deadlines of TLS, each chosen by us for the reason beside it."""

CLIENT_HELLO_BYTES = 16 * 1024  # the largest seen carry post-quantum key shares: under 2 KiB
CLIENT_HELLO_RECORDS = 4  # one is usual; two when a middlebox splits; more is somebody probing
CLIENT_HELLO_SECONDS = 5.0  # the client allows a whole dial 10 s
HANDSHAKE_SECONDS = 10.0  # the same budget, after the hello
WRITE_SECONDS = 30.0  # for each WRITE_CHUNK: a reader slower than 2 KiB/s only holds memory

READ_CHUNK = 64 * 1024  # one socket read; all records in it are decrypted before anybody is woken
WRITE_CHUNK = 64 * 1024  # encrypted in one piece: bigger ones leave the processor's cache
PENDING_OUT = 16 * 1024  # answers to key updates that wait for our next write; more is a flood
