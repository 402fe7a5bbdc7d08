"""The moments that others wait for: it serves, it reads its files again, it stops."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Callable

import trio

from appliance.listeners import Listeners
from appliance.notify import Notifier
from appliance.tls.current import CurrentCertificate
from appliance.tls.watch import reload_certificate

log = logging.getLogger("appliance")


async def until_told_to_stop(
    listeners: Listeners,
    notifier: Notifier,
    certificate: CurrentCertificate | None,
    changed: Callable[[], None],
) -> None:
    """Say that we serve; at SIGHUP read the certificate again, and call `changed`; return at SIGTERM and SIGINT."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        announce(listeners, notifier)  # whoever waits for this may signal at once
        async for number in signals:
            if number != signal.SIGHUP:
                log.info("stopping", extra={"signal": signal.Signals(number).name})
                notifier.stopping()
                return
            notifier.reloading()
            if certificate is not None and reload_certificate(certificate, forced=True):
                changed()
            notifier.ready()


def announce(listeners: Listeners, notifier: Notifier) -> None:
    """One line a listener, then `ready`."""
    for line in listeners.describe():
        print(line, file=sys.stderr)
    print("ready", file=sys.stderr, flush=True)
    notifier.ready()
