"""Addresses: connections to public internet addresses and to no others.

Given a host and a port. It does not know what is asked for there. What was checked is what is connected to, so that a
name which resolves to something else a moment later gains nothing.
"""

from __future__ import annotations

import ipaddress
import socket
from typing import Any

from i2vgen_ms.errors import MediaLimitError

# Addresses that carry another one inside (NAT64; RFC 6052): that one counts.
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
# Protocol assignments and relays, some of which Python's older lists call global.
_SPECIAL = (ipaddress.ip_network("192.0.0.0/24"), ipaddress.ip_network("192.88.99.0/24"))


def is_public(address: str) -> bool:
    """Whether an address belongs to the public internet: no loopback, private or local network, multicast, tunnel.

    >>> is_public('93.184.215.14'), is_public('::ffff:127.0.0.1'), is_public('169.254.169.254')
    (True, False, False)
    """
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return is_public(str(ip.ipv4_mapped))
        if ip in _NAT64:
            return is_public(str(ipaddress.IPv4Address(ip.packed[-4:])))
        if ip.sixtofour is not None or ip.teredo is not None or ip.is_site_local:
            return False
    elif any(ip in network for network in _SPECIAL):
        return False
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_unspecified)


def connect(host: str, port: int, timeout: Any) -> socket.socket:
    """A TCP connection to the host, all of whose addresses must be public.

    Raises MediaLimitError before anything is sent when one is not; it does not say which address that is, which would
    tell strangers about the network here. OSError when nobody answers.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    if not all(is_public(str(place[0])) for *_, place in found):
        raise MediaLimitError(
            f"{host!r:.100} is not an address of the public internet; only those are fetched here: send the file itself"
        )
    failure: OSError = OSError("the name has no address")
    for family, kind, protocol, _, place in found:
        connection = socket.socket(family, kind, protocol)
        try:
            connection.settimeout(timeout)
            connection.connect(place)
            return connection
        except OSError as error:
            connection.close()
            failure = error
        except BaseException:
            connection.close()
            raise
    raise failure
