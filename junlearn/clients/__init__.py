"""Training over many clients, with and without a server.

Everything a client does is written for one client, and communicates with the
others through collectives: `across(body, collective=True)` runs it for all, on
one device or many. Examples of clients are stacked `[clients, n, ...]` with
`weight` `[clients, n]` (0 = absent); params of clients `[clients, ...]`.
"""

from junlearn.clients import (
  data,
  gossip,
  influence,
  rounds,
  topology,
  training,
)

__all__ = ["data", "gossip", "influence", "rounds", "topology", "training"]
