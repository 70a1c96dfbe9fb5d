"""Rates of the service's copies, kept together: what one lets pass counts with the others."""

import asyncio
import logging

from ray import serve
from ray.serve.handle import DeploymentHandle

from geoloc.serving.access import Rate

log = logging.getLogger("geoloc")

EXCHANGE_S = 1


async def exchange_rates(rate: Rate, ledger: DeploymentHandle) -> None:
    """For ever: tell the ledger what this copy has let pass, and charge what others have."""
    copy = serve.get_replica_context().replica_tag
    while True:
        await asyncio.sleep(EXCHANGE_S)
        try:
            elsewhere = await ledger.exchange.remote(copy, rate.report())
        except Exception as error:  # whatever it is, the copy goes on by itself until the ledger is back
            log.warning("rates are not exchanged for the moment: %s", type(error).__name__)
            continue
        for client, photos in elsewhere.items():
            rate.charge(client, photos, here=False)
