"""`[limits]` in the terms of the parts that keep them."""

from __future__ import annotations

from appliance.config.schema import Limits
from control.limits import Quotas
from derp.limits import Limits as RelayLimits


def quotas(limits: Limits) -> Quotas:
    """Coordination's."""
    return Quotas(
        nodes=limits.nodes,
        nodes_per_user=limits.nodes_per_user,
        nodes_per_key=limits.nodes_per_key,
        ephemeral_nodes=limits.ephemeral_nodes,
        pending_logins=limits.pending_logins,
        pending_logins_per_source=limits.pending_logins_per_source,
        pending_login_s=limits.pending_login_s,
    )


def relay(limits: Limits) -> RelayLimits:
    """The relay's."""
    return RelayLimits(
        connections=limits.derp_connections,
        connections_per_key=limits.derp_per_node_key,
        queue_packets_any_size=limits.derp_packets,
        queue_bytes=limits.derp_connection_bytes,
        key_bytes=limits.derp_key_bytes,
        process_bytes=limits.derp_total_bytes,
        stall_s=float(limits.derp_stalled_write_s),
    )
