"""STUN Binding, server side: what is asked, what is answered.

    0                   2                   4                                 8
    | type (16) = 0x0001 | length (16)       | magic cookie (32) = 0x2112A442  | transaction id (96) |

followed by attributes, `length` bytes in all:

    | type (16) | length of the value (16) | value | padding to a multiple of four |

    0x8022 SOFTWARE             must be there and read "tailnode"
    0x8028 FINGERPRINT          must be last: CRC-32 of all before it, XOR 0x5354554E
    0x0020 XOR-MAPPED-ADDRESS   the answer's only one: | 0 | family 1 or 2 | port (16) | address (32 or 128) |,
                                port and address XORed with cookie and transaction id

Official clients send 40 bytes. We take other attributes too, as the reference does, but at most 128 bytes, and
unlike the reference the header's length must be true.

Quirk: on a dual-stack socket the reference answers an IPv4 client with family 2 and ::ffff:a.b.c.d. We say
family 1, and clients take both.

Source: RFC 8489 §5, §14.2, §14.7; tailscale: net/stun/stun.go (ParseBindingRequest, Response).
"""

from struct import Struct
from zlib import crc32

from stun.errors import ParseError
from stun.limits import MAX_REQUEST_BYTES, MIN_REQUEST_BYTES

BINDING_REQUEST = 0x0001
BINDING_SUCCESS = 0x0101
MAGIC_COOKIE = 0x2112A442
XOR_MAPPED_ADDRESS = 0x0020
SOFTWARE = 0x8022
FINGERPRINT = 0x8028
FINGERPRINT_XOR = 0x5354554E  # "STUN"
CLIENT_SOFTWARE = b"tailnode"

HEADER = Struct(">HHI12s")
ATTRIBUTE = Struct(">HH")
UINT32 = Struct(">I")
_FINGERPRINT_BYTES = ATTRIBUTE.size + UINT32.size
_V4_MAPPED = bytes(10) + b"\xff\xff"
_ANSWER = {
    4: Struct(">HHI12sHHBBH4s"),
    16: Struct(">HHI12sHHBBH16s"),
}


def parse_binding_request(datagram: bytes) -> bytes:
    """The transaction id (12 bytes) of a request that a Tailscale client would send.

    Raises ParseError for everything else, whatever the bytes.
    """
    size = len(datagram)
    if not MIN_REQUEST_BYTES <= size <= MAX_REQUEST_BYTES:
        raise ParseError("size")
    kind, length, cookie, transaction_id = HEADER.unpack_from(datagram)
    if kind != BINDING_REQUEST or cookie != MAGIC_COOKIE or length != size - HEADER.size:
        raise ParseError("header")
    last = size - _FINGERPRINT_BYTES
    software = b""
    at = HEADER.size
    while at < last:
        name, length = ATTRIBUTE.unpack_from(datagram, at)
        value = at + ATTRIBUTE.size
        if name == SOFTWARE:
            software = datagram[value : value + length]
        at = value + (length + 3 & ~3)
    if at != last or ATTRIBUTE.unpack_from(datagram, last) != (FINGERPRINT, UINT32.size):
        raise ParseError("attributes")
    if software != CLIENT_SOFTWARE:
        raise ParseError("software")
    (fingerprint,) = UINT32.unpack_from(datagram, last + ATTRIBUTE.size)
    if fingerprint != crc32(datagram[:last]) ^ FINGERPRINT_XOR:
        raise ParseError("fingerprint")
    return bytes(transaction_id)


def encode_binding_response(transaction_id: bytes, address: bytes, port: int) -> bytes:
    """The answer: `address` is 4 or 16 bytes, and a v4-mapped one is answered as IPv4."""
    if len(address) == 16 and address.startswith(_V4_MAPPED):
        address = address[12:]
    size = len(address)
    mask = UINT32.pack(MAGIC_COOKIE) + transaction_id
    xored = int.from_bytes(address, "big") ^ int.from_bytes(mask[:size], "big")
    return _ANSWER[size].pack(
        BINDING_SUCCESS,
        ATTRIBUTE.size + 4 + size,
        MAGIC_COOKIE,
        transaction_id,
        XOR_MAPPED_ADDRESS,
        4 + size,
        0,
        1 if size == 4 else 2,
        port ^ (MAGIC_COOKIE >> 16),
        xored.to_bytes(size, "big"),
    )
