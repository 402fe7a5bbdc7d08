"""The moments that others wait for: it serves, it reads its files again, it stops."""

from __future__ import annotations

import logging
import signal
import sys

import trio

from appliance.listeners import Listeners
from appliance.notify import Notifier
from appliance.tls.current import CurrentCertificate
from appliance.tls.watch import reload_certificate

log = logging.getLogger("appliance")


async def until_told_to_stop(
    listeners: Listeners, certificate: CurrentCertificate | None, notifier: Notifier
) -> None:
    """Say that we serve; read the certificate again at SIGHUP; return at SIGTERM and SIGINT."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        announce(listeners, notifier)  # whoever waits for this may signal at once
        async for number in signals:
            if number != signal.SIGHUP:
                log.info("stopping", extra={"signal": signal.Signals(number).name})
                notifier.stopping()
                return
            notifier.reloading()
            if certificate is not None:
                reload_certificate(certificate, forced=True)
            notifier.ready()


def announce(listeners: Listeners, notifier: Notifier) -> None:
    """One line a listener, then `ready`."""
    for line in listeners.describe():
        print(line, file=sys.stderr)
    print("ready", file=sys.stderr, flush=True)
    notifier.ready()
